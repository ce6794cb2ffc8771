FROM a
LABEL größe="日本" x=${y:?日}
