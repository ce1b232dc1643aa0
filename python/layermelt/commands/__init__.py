"""Commands of the command line, a file each: its `command` is the command.

They are named in `layermelt.cli`, which imports one when it is asked for.
"""
