"""Decoders of the common shape on kernels of our own: recognised by their structure, proved equal, then taken over.

`parts` names what such a decoder consists of and computes it plainly, `recognise` finds the parts in transformers'
modules and proves them by that plain computation, `takeover` moves the weights into the kernels' layout and frees the
modules, `batch` writes a step's works into arrays, and `runner` runs them. Whatever is not recognised stays with
transformers' own code.
"""
