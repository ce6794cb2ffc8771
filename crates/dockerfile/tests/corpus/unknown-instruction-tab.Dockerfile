FROM a
	ÉCHO	b
