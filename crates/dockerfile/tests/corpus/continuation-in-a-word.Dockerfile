FR\
OM al\
pine
ENV pa\
th=/a:\
/b
