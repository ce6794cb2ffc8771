FROM a
CMD --x
