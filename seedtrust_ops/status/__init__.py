"""How things stand, for `seedtrust-ops status` and `seedtrust-ops health`; nothing here loads Dagster.

`facts` names what is known, `runs` and `work` read it from the two databases, `gathering` asks both, `health` judges
and `showing` prints.
"""
