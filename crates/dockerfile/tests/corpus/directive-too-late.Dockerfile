# a comment
# escape=`
FROM a
RUN b `
  c
