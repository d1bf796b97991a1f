from serving.compiled import put_first

put_first(__name__, __path__)
