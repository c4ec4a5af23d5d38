"""MedSAM in 3D Slicer: the library behind the module, in rooms that each know only the rooms before them.

==============  ==============================================================================================
``prompts``     boxes in slice pixels, the noun that all rooms share
``model``       torch: the networks (ViT-B/L/H, TinyViT, prompt encoder, mask decoder) and their checkpoints
``inference``   one slice in, one mask out: preprocessing, the predictor
``volume``      numpy: slices, intensity windows, embedding cache, propagation; files and metrics by SimpleITK
``dataset``     a site's labelled cases in a folder: anonymous, checked, split by patient
``evaluation``  how well a model segments them, the report
``training``    torch: fine-tuning on them, from one process to many
``mrml``        Slicer's nodes: volume + ROI -> segment, with undo
``store``       weights and sample files on disk, downloaded only when asked, checked by SHA-256
``headless``    a MRML scene and offscreen views without the application
``cli``         the command line ``medsam-slicer``
==============  ==============================================================================================

Importing this package imports nothing else, so that Slicer's start pays nothing for it.
"""

__version__ = "0.1.0"
