package message

import "bytes"

// AppendRedacted appends a path with the names of its query, and a star for each
// value: those may be tokens, and what people type.
func AppendRedacted(b, path []byte) []byte {
	path, query, found := bytes.Cut(path, question)
	b = append(b, path...)
	sep := byte('?')
	for found {
		var pair []byte
		pair, query, found = bytes.Cut(query, ampersand)
		b = append(b, sep)
		sep = '&'
		if name, _, ok := bytes.Cut(pair, equals); ok {
			b = append(b, name...)
			b = append(b, "=*"...)
		} else if len(pair) > 0 { // a name, or a value without one
			b = append(b, '*')
		}
	}
	return b
}

var question, ampersand, equals = []byte("?"), []byte("&"), []byte("=")
