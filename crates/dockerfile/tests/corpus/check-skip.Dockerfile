# check=skip=JSONArgsRecommended,FromAsCasing;error=true
FROM a as b
CMD c
MAINTAINER d
