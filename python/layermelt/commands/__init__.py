"""Commands of the command line, a file each: its `command` is the command.

A file here is a command of that name; `layermelt.cli` imports it when it is asked for.
"""
