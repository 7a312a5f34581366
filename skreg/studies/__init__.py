"""The studies, one module each, all of one form.

``TITLE`` and ``QUESTION`` say what a study is about; ``run(data, ...)`` returns a dict
that JSON can hold; ``table(result)``, ``curves(result)`` and ``findings(result)`` make
of it a DataFrame to read, a long DataFrame of every curve, and sentences;
``plot(result)`` makes figures by name.
"""
