"""The hybrid objective (method.md, section 4).

`losses` has one function per loss, `hybrid` combines them over a batch, `examples` turns pairs of text into
the tokenised examples that it is computed on, `order` mixes the treatments in every batch.
"""
