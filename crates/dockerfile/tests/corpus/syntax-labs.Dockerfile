#syntax=docker/dockerfile:1.9-labs
FROM a
COPY --parents --exclude=*.md --exclude=x/** a/b c/ /d/
