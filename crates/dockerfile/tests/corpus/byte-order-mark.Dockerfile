# escape=`
FROM a
RUN dir C:\ `
  /x
COPY C:\a b`\
