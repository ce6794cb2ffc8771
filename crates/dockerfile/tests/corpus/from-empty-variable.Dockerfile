ARG base
FROM ${base} AS x
