from alpine as build
from alpine
run true
copy --from=build a b
cmd ["x"]
