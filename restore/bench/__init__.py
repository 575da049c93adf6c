"""`restore bench`: the tables that papers print, reproduced, and models compared.

`protocols` says what is made of a picture and what is counted; `runs` restores sets and keeps what
is done in a `cache`; `results` is what comes out, `tables` prints it; `compare` and `crops` put two
models side by side, `speed` times them.
"""
