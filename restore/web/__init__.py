"""The page of `restore web`: upload pictures, choose a model, compare before and after, download.

`page` is what a browser shows, the only module that needs Gradio; `markup` its fragments of HTML.
Behind it: `service` answers the page, `desk` is the queue, `work` restores the pictures of one
click, `pulse` watches a network on the way, `previews` makes reduced pictures, `shelf` holds the
models, `visits` the files of each visitor, `limits` what is taken. `guard` stands before all
requests, `server` starts and ends it.
"""
