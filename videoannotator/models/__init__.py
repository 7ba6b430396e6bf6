"""
Weights that do not come inside a package: which there are, which are here, and how they get here.

`catalogue.py` reads the declarations (`*.yaml` beside it, one file for each family of models), `shelf.py` keeps them on
disk, `fetch.py` brings them. A model is here whole and verified, or it is not here: nothing half-fetched or changed is
ever handed to a stage, and nothing is fetched unless somebody asks for it.
"""
