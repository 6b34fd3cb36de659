layout video = text[3]                         # E[unsupported]
