# nothing

#
