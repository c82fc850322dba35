"""`make browser`: the same handlers in a browser (Brython in Chromium) and with bws, against one server.

`scenarios.py` is the program that both run, `page.py` its frame in the browser, `cpython.py` that in CPython,
`server.py` the other end, `differences.py` what is meant to differ, and `__main__.py` compares.
"""
