"""What holds for every registered mask, objective and loss: tests that also try a plug-in of one's own.

    python -m pytest -p my_package.masks --pyargs vlp.contracts -k checkerboard

imports the plug-in `my_package.masks` (`-p`, once for each), which registers its classes, and runs the tests
that have `checkerboard` in their names: each is named for the class that it tries. Needs pytest and scipy.

A class is tried with its defaults, or with the settings that `vlp.contracts.settings` has for its name; a
plug-in whose class cannot be made without settings adds some there.
"""
