"""The checkpoints that the authors of the networks offer, and the copies of them on this machine.

`entries` says which there are, under which names, and what is known of each file; `cache` where
copies lie; `transfer` brings a file over HTTP, `getting` puts it into the cache once it is whole
and what it should be. Only `getting.get` ever opens a connection.
"""
