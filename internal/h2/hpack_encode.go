package h2

// An encoder is the sending side's compression.
//
// A field goes into the table when it comes a second time. Then a value that
// comes once and never again (a request's id, a trace) evicts nothing, and
// nobody has to list the names of such.
//
// Nothing is Huffman coded: inside a mesh a few bytes cost less than the coding,
// and what recurs is one byte anyway.
type encoder struct {
	table
	sight *sight // nil until there was a field that is in no table

	limit  int // what the peer allows, tableSize at most
	lowest int // …allowed at least once since it was last told
	told   bool
}

// A sight is what an encoder has seen.
type sight struct {
	heads [64]uint32    // the newest entries of the chains, as their numbers
	once  [16][4]uint32 // hashes of fields that came once, the latest first
}

// again reports whether a field came before, and remembers it.
func (s *sight) again(hash uint32) bool {
	set := &s.once[hash%uint32(len(s.once))]
	for _, h := range set {
		if h == hash {
			return true
		}
	}
	copy(set[1:], set[:])
	set[0] = hash
	return false
}

func (e *encoder) init() {
	e.max, e.limit, e.lowest, e.told = tableSize, tableSize, tableSize, true
}

// setLimit takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) setLimit(v uint32) {
	e.limit = int(min(v, tableSize))
	e.lowest = min(e.lowest, e.limit)
	e.told = e.lowest == e.max && e.limit == e.max
}

// appendLimit appends what the peer must hear of changed limits before the next
// field (section 4.2). If one was lower for a while, the table is emptied: x/net
// takes a second update for an error unless nothing is left behind the first.
func (e *encoder) appendLimit(b []byte) []byte {
	if e.lowest < e.limit {
		b = appendInt(b, 0x20, 5, 0)
		e.setMax(0)
	}
	b = appendInt(b, 0x20, 5, uint64(e.limit))
	e.setMax(e.limit)
	e.lowest, e.told = e.limit, true
	return b
}

// fieldRoom is more than a field takes besides its bytes.
const fieldRoom = 16

// appendField appends a field; b has room for it.
func (e *encoder) appendField(b []byte, f *Field) []byte {
	name := hashName(f.Name)
	if f.Sensitive {
		return appendLiteral(b, 0x10, 4, staticNames.name(name, f.Name), f)
	}
	hash := pair(name, hashOf(f.Value))
	if i := staticPairs.field(hash, f.Name, f.Value); i != 0 {
		return append(b, 0x80|byte(i))
	}
	if i := e.find(hash, f); i != 0 {
		return appendInt(b, 0x80, 7, uint64(i))
	}
	at := staticNames.name(name, f.Name)
	if e.sight == nil {
		e.sight = new(sight)
		e.added = 1 // so that 0 is nobody's number
	}
	if !e.sight.again(hash) || len(f.Name)+len(f.Value) > e.max/2 { // which would evict most of what there is
		return appendLiteral(b, 0, 4, at, f)
	}
	b = appendLiteral(b, 0x40, 6, at, f)
	e.insert(hash, f)
	return b
}

// find returns the index of a field in the dynamic table, or 0.
func (e *encoder) find(hash uint32, f *Field) int {
	if e.n == 0 {
		return 0
	}
	for a := e.sight.heads[hash%uint32(len(e.sight.heads))]; e.has(a); {
		x := &e.ring[a&uint32(len(e.ring)-1)]
		if x.hash == hash && x.name == len(f.Name) && string(x.bytes[:x.name]) == string(f.Name) && string(x.bytes[x.name:]) == string(f.Value) {
			return len(static) + int(e.added-1-a)
		}
		if x.next >= a { // the numbers have gone round
			break
		}
		a = x.next
	}
	return 0
}

func (e *encoder) insert(hash uint32, f *Field) {
	a := e.added
	if x := e.add(f.Name, f.Value); x != nil {
		at := &e.sight.heads[hash%uint32(len(e.sight.heads))]
		x.hash, x.next = hash, *at
		*at = a
	}
}

// appendLiteral appends a field as it is, its name by index at if there is one.
func appendLiteral(b []byte, first byte, bits, at int, f *Field) []byte {
	b = appendInt(b, first, bits, uint64(at))
	if at == 0 {
		b = appendInt(b, 0, 7, uint64(len(f.Name)))
		b = append(b, f.Name...)
	}
	b = appendInt(b, 0, 7, uint64(len(f.Value)))
	return append(b, f.Value...)
}
