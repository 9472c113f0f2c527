"""Plays one group across several implementations, and says where they disagree.

`peers` starts the implementations and calls them, `transcript` writes down every call, `world` is a group whose members
belong to them, `scenarios` and `histories` are what is played, `differences` finds the first field in which two members
differ, `playing` goes through pairs and suites, and `matrix` and `document` show what came out.
"""
