"""Public data sets in their original layouts, one file each.

A new data set is one new file here with a subclass of :class:`~medvl.data.public.base.PublicDataset` under
:func:`~medvl.data.public.base.register_public_dataset`. ``KIND=NAME:PATH`` sources find it by its name.
"""
