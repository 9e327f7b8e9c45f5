package config

// A Code names a sort of problem. Codes are stable: a meaning never changes
// and a code is never given out twice.
type Code string

// Codes. WP10 reading, WP11 shape, WP12 values, WP13 references, WP14 support,
// WP15 lints. WP16 and WP17 are for what is found while compiling.
const (
	CodeSyntax       Code = "WP1001"
	CodeUnreadable   Code = "WP1002"
	CodeNotDocument  Code = "WP1003"
	CodeNoDocument   Code = "WP1004"
	CodeLimit        Code = "WP1005"
	CodeNoHeader     Code = "WP1006"
	CodeMetadata     Code = "WP1007"
	CodeSection      Code = "WP1008"
	CodeSectionShape Code = "WP1009"
	CodeTooMany      Code = "WP1010"
	CodeState        Code = "WP1011"

	CodeUnknownField Code = "WP1101"
	CodeWrongType    Code = "WP1102"
	CodeMissing      Code = "WP1103"
	CodeEnum         Code = "WP1104"
	CodeFieldTwice   Code = "WP1105"
	CodeObjectTwice  Code = "WP1106"
	CodeRange        Code = "WP1107"
	CodeFormat       Code = "WP1108"
	CodeYAMLFeature  Code = "WP1109"

	CodePath         Code = "WP1201"
	CodeRegex        Code = "WP1202"
	CodeFilter       Code = "WP1203"
	CodeTimeouts     Code = "WP1204"
	CodeExclusive    Code = "WP1205"
	CodeFramingField Code = "WP1206"
	CodeRepeated     Code = "WP1207"

	CodeNoParent      Code = "WP1301"
	CodeNoParentPort  Code = "WP1302"
	CodeNoBackend     Code = "WP1303"
	CodeNoBackendPort Code = "WP1304"
	CodeNoWorkload    Code = "WP1305"
	CodeNoIdentity    Code = "WP1306"
	CodeAddressTaken  Code = "WP1307"
	CodeHostnameTaken Code = "WP1308"
	CodeEndpointPort  Code = "WP1309"

	CodeInactiveKind  Code = "WP1401"
	CodeNotSupported  Code = "WP1402"
	CodeConsumerRoute Code = "WP1403"

	CodeShadowed        Code = "WP1501"
	CodeNoCatchAll      Code = "WP1502"
	CodeNoBackends      Code = "WP1503"
	CodeNoWeight        Code = "WP1504"
	CodeNoEndpoints     Code = "WP1505"
	CodeHostIgnored     Code = "WP1506"
	CodeNotHTTP         Code = "WP1507"
	CodeUnknownProtocol Code = "WP1508"
	CodeSharedAddress   Code = "WP1509"
	CodeNotTCP          Code = "WP1510"
	CodeOutranked       Code = "WP1511"
	CodeBackendSpeaks   Code = "WP1512"

	CodeCompile Code = "WP1601"
)

// An Effect is what follows from a problem.
type Effect uint8

// Effects.
const (
	Tolerated   Effect = iota // nothing: a warning, or of the document alone
	PartFails                 // the object is active but for the part that is named
	ObjectFails               // the object keeps its last good version, or fails closed
	Rejected                  // the document as a whole is not taken
)

// codeInfo is the meaning of a code.
type codeInfo struct {
	code     Code
	severity Severity
	effect   Effect
	meaning  string
}

// codes is every code there is.
var codes = []codeInfo{
	{CodeSyntax, Error, Rejected, "a file is not valid YAML or JSON"},
	{CodeUnreadable, Error, Rejected, "a file or directory cannot be read"},
	{CodeNotDocument, Error, Rejected, "what is written is not a document of this format"},
	{CodeNoDocument, Error, Rejected, "there is no document in what was given"},
	{CodeLimit, Error, Rejected, "a document exceeds a limit of size, depth, aliases or objects"},
	{CodeNoHeader, Error, Tolerated, "apiVersion or kind of the document is missing"},
	{CodeMetadata, Error, Rejected, "the document's metadata is wrong, or two files disagree on it"},
	{CodeSection, Error, Tolerated, "a section is not known to this version"},
	{CodeSectionShape, Error, ObjectFails, "a section is not a list of objects"},
	{CodeTooMany, Error, Tolerated, "more problems were found than are listed"},
	{CodeState, Warning, Tolerated, "the saved last good document is not usable and was ignored"},

	{CodeUnknownField, Error, ObjectFails, "a field is not known"},
	{CodeWrongType, Error, ObjectFails, "a value has the wrong type"},
	{CodeMissing, Error, ObjectFails, "a required field is missing"},
	{CodeEnum, Error, ObjectFails, "a value is not one of those allowed"},
	{CodeFieldTwice, Error, ObjectFails, "a field is written twice"},
	{CodeObjectTwice, Error, ObjectFails, "two objects have the same name"},
	{CodeRange, Error, ObjectFails, "a number, a length or a count is out of range"},
	{CodeFormat, Error, ObjectFails, "a value is not formed as it must be"},
	{CodeYAMLFeature, Error, ObjectFails, "a feature of YAML that documents do not use"},

	{CodePath, Error, ObjectFails, "a path to match is not a path"},
	{CodeRegex, Error, ObjectFails, "a regular expression does not compile"},
	{CodeFilter, Error, ObjectFails, "a filter's type and settings do not agree, or it is repeated"},
	{CodeTimeouts, Error, ObjectFails, "timeouts contradict each other"},
	{CodeExclusive, Error, ObjectFails, "fields that exclude each other, or none of several of which one is needed"},
	{CodeFramingField, Error, ObjectFails, "a header that belongs to the connection and is no route's to edit"},
	{CodeRepeated, Error, ObjectFails, "two items of a list have the same key"},

	{CodeNoParent, Error, PartFails, "a parentRef names nothing in the document"},
	{CodeNoParentPort, Error, PartFails, "a parentRef names a port that the service does not have"},
	{CodeNoBackend, Error, PartFails, "a backendRef names no service of the document: its share is answered 500"},
	{CodeNoBackendPort, Error, PartFails, "a backendRef names a port that the service does not have: its share is answered 500"},
	{CodeNoWorkload, Error, PartFails, "an endpoint names no workload of the document: it is left out"},
	{CodeNoIdentity, Error, PartFails, "an endpoint is to be reached by HBONE and nothing says which identity it has: it is left out"},
	{CodeAddressTaken, Error, PartFails, "two services have the same address and port: the first has it"},
	{CodeHostnameTaken, Error, PartFails, "two services have the same hostname and port: the first has it"},
	{CodeEndpointPort, Error, PartFails, "an endpoint gives a target for a port that its service does not have"},

	{CodeInactiveKind, Error, ObjectFails, "the kind is known and not active in this version"},
	{CodeNotSupported, Error, ObjectFails, "the field or value is known and not supported in this version"},
	{CodeConsumerRoute, Error, PartFails, "a route for a service of another namespace (consumer route) is not supported in this version"},

	{CodeShadowed, Warning, Tolerated, "a match can never be reached: another one takes its requests"},
	{CodeNoCatchAll, Warning, Tolerated, "a service has routes and none takes the rest: it is answered 404"},
	{CodeNoBackends, Warning, Tolerated, "a rule has no backendRefs: it answers 500"},
	{CodeNoWeight, Warning, Tolerated, "all backendRefs of a rule have weight 0: it answers 500"},
	{CodeNoEndpoints, Warning, Tolerated, "a service has no endpoints: it answers 503"},
	{CodeHostIgnored, Warning, Tolerated, "hostnames of a route: the destination picks the service, never the Host"},
	{CodeNotHTTP, Warning, Tolerated, "an HTTP route for a port that is not HTTP is never used"},
	{CodeUnknownProtocol, Warning, Tolerated, "an appProtocol that is not known: the protocol is found out from the first bytes"},
	{CodeSharedAddress, Warning, Tolerated, "two workloads have the same address: who calls from it cannot be told"},
	{CodeNotTCP, Warning, Tolerated, "a TCP or TLS route for a port that speaks something else is never used"},
	{CodeOutranked, Warning, Tolerated, "a port has routes of two kinds for the same traffic: the more specific kind is used, the other never"},
	{CodeBackendSpeaks, Warning, Tolerated, "a backendRef names a port that does not speak what the route sends"},

	{CodeCompile, Error, ObjectFails, "the object decodes, and cannot be built"},
}

// Meaning returns the code's meaning, in one line; "" for a code that this
// package does not give out.
func (c Code) Meaning() string {
	if i := c.info(); i != nil {
		return i.meaning
	}
	return ""
}

// Effect returns what follows from a problem with the code.
func (c Code) Effect() Effect {
	if i := c.info(); i != nil {
		return i.effect
	}
	return ObjectFails
}

func (c Code) info() *codeInfo {
	for i := range codes {
		if codes[i].code == c {
			return &codes[i]
		}
	}
	return nil
}
