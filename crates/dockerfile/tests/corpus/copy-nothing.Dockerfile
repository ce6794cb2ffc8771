FROM a
ADD --link
