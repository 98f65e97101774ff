"""Public data sets in the layouts in which they are published, one file each.

A new data set is one new file here with a subclass of :class:`~medvl.data.public.base.PublicDataset` under
:func:`~medvl.data.public.registry.register_public_dataset`. Locations ``NAME:PATH`` find it by its name.
"""
