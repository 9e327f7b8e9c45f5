package config

// What every document begins with.
const (
	APIVersion   = "sandwich-mesh.io/v1alpha1"
	DocumentKind = "Waypoint"
)

// Config is one configuration document, however many files it came from.
type Config struct {
	// The version of the format.
	APIVersion string `json:"apiVersion" rule:"required"`
	// Always Waypoint.
	Kind string `json:"kind" rule:"required"`
	// The waypoint that the document configures.
	Metadata Metadata `json:"metadata,omitzero"`
	// The destinations that the waypoint serves or sends to.
	Services []*Service `json:"services,omitempty"`
	// Who may be at the other end of a connection: the TLS identity, locality and labels of an address.
	Workloads []*Workload `json:"workloads,omitempty"`
	// How HTTP requests for a service are routed: Gateway API HTTPRoutes.
	HTTPRoutes []*HTTPRoute `json:"httpRoutes,omitempty"`
	// How gRPC calls for a service are routed: Gateway API GRPCRoutes.
	GRPCRoutes []*GRPCRoute `json:"grpcRoutes,omitempty"`
	// How connections for a service are routed: Gateway API TCPRoutes.
	TCPRoutes []*TCPRoute `json:"tcpRoutes,omitempty"`
	// How TLS connections for a service are routed by the name they ask for: Gateway API TLSRoutes.
	TLSRoutes []*TLSRoute `json:"tlsRoutes,omitempty"`

	// Broken lists objects that the document holds and that cannot be used as
	// they are written. They stand in none of the lists above.
	Broken []Broken `json:"-"`
	// Closed lists what must not be served in their place. Settle fills it.
	Closed []Closed `json:"-"`
}

// Metadata names the waypoint of a document.
type Metadata struct {
	// The waypoint's name, that of its Gateway; waypoint when left out.
	Name string `json:"name,omitempty" rule:"format=name"`
	// The waypoint's namespace, and that of every object that names none; default when left out.
	Namespace string `json:"namespace,omitempty" rule:"format=label"`

	At Pos `json:"-"`
}

// Meta is what every object begins with.
type Meta struct {
	// The object's name, unique among the objects of its kind and namespace.
	Name string `json:"name" rule:"required,format=name"`
	// The object's namespace; the document's when it is left out.
	Namespace string `json:"namespace,omitempty" rule:"format=label"`
	// The object that this one was made from, for messages.
	Origin *Origin `json:"origin,omitempty"`

	File string `json:"-"` // where it is written
	At   Pos    `json:"-"`
}

// Head returns the object's metadata.
func (m *Meta) Head() *Meta { return m }

// Origin names the object that a user wrote, when something else wrote ours.
type Origin struct {
	// The kind of the object, for example HTTPRoute.
	Kind string `json:"kind" rule:"required,max=63"`
	// Its namespace.
	Namespace string `json:"namespace,omitempty" rule:"max=63"`
	// Its name.
	Name string `json:"name" rule:"required,max=253"`
	// Its metadata.generation.
	Generation int64 `json:"generation,omitempty" rule:"min=0"`
}

// String returns the origin as messages name it.
func (o *Origin) String() string {
	return ID{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}.String()
}

// Pos is a place in a file, both counted from 1. The zero Pos means nowhere,
// as for an object that was not read from a file.
type Pos struct{ Line, Column int32 }

// ID names an object.
type ID struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"` // empty when it could not be read
}

// String returns "HTTPRoute shop/reviews".
func (id ID) String() string {
	name := id.Name
	if name == "" && id.Kind == DocumentKind {
		return id.Kind // the document itself
	}
	if name == "" {
		name = "(without a name)"
	}
	if id.Namespace == "" {
		return id.Kind + " " + name
	}
	return id.Kind + " " + id.Namespace + "/" + name
}

// Key names an object among those of its kind.
type Key struct{ Namespace, Name string }

// String returns "shop/reviews".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Key returns the object's key.
func (m *Meta) Key() Key { return Key{m.Namespace, m.Name} }

// Broken is an object that the document holds and that cannot be used as it is
// written.
type Broken struct {
	ID     ID      `json:"id"`
	Origin *Origin `json:"origin,omitempty"`
	File   string  `json:"-"`
	At     Pos     `json:"-"`
	// Section is set when no object of the kind could be read, not even its name.
	Section bool `json:"section,omitempty"`
	// Inactive is set when the kind is known and this version does not run it.
	Inactive bool `json:"inactive,omitempty"`
	// Role says what follows when the object has no good version.
	Role Role `json:"role"`
	// Targets are the objects that it guards or routes for; nil when that could
	// not be read either.
	Targets []Target `json:"targets"`
}

// A Target is an object that another one attaches to.
type Target struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// A Role says what an object is for, and so what its absence must not allow.
type Role uint8

// Roles.
const (
	RolePlain  Role = iota // describes: absence harms only itself
	RoleRoute              // routes: what nothing else matches is answered 500
	RolePolicy             // guards: everything is denied
)

// String returns the role's word.
func (r Role) String() string { return [...]string{"plain", "route", "policy"}[r] }

// Closed says which services must not be served as if an object were not there.
type Closed struct {
	By       ID
	Role     Role  // RolePolicy: deny all; RoleRoute: 500 for what no other route takes
	Services []Key // in document order; may be empty
}

// An Object is anything that a document lists.
type Object interface {
	// Head returns the object's metadata.
	Head() *Meta

	// complete fills in what follows from the document and from other fields.
	// What does not is a default tag.
	complete(c *Config)
	// targets returns what the object attaches to.
	targets() []Target
	// check reports what is wrong with the object alone.
	check(r *report)
	// refs reports what is wrong between the object and others.
	refs(r *report, x *index)
	// lint reports what is legal and probably not meant.
	lint(r *report, x *index)
}
