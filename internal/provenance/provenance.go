// Package provenance knows of each value that a session has seen how far its
// source can be trusted.
//
// It is pure and keeps no content: digests under a key that the caller makes,
// and where each was seen. docs/design/012-provenance.md says why the rules are
// what they are.
package provenance

import "fmt"

// A Trust is how far the source of a value can be trusted. A higher one is
// trusted further.
type Trust uint8

// The sources, the least trusted first.
const (
	// Unknown: nobody knows where the value is from. It was made up, or what
	// was seen could not be kept.
	Unknown Trust = iota
	// Outsiders: from a field that people outside the organisation can write.
	Outsiders
	// Structure: what a tool says of its own: ids, states, times.
	Structure
	// Directory: the organisation's directory vouches for it.
	Directory
	// Signed: the tool passes on only what it has verified a signature of.
	Signed
	// User: the user named it.
	User
	// Nothing: there is nothing that could be from anywhere.
	Nothing

	trusts // how many there are
)

var trustNames = [trusts]string{"unknown", "outsiders", "structure", "directory", "signed", "user", "none"}

// Rank is the trust as policies see it, from 1 to 5. What is from outsiders and
// what is from nobody knows where have the same: no policy should let a value pass
// because an outsider has said it too.
func (t Trust) Rank() int64 { return int64(min(max(t, Outsiders), User)) }

func (t Trust) String() string {
	if t >= trusts {
		return fmt.Sprintf("trust(%d)", uint8(t))
	}
	return trustNames[t]
}

// ParseTrust reads what an operator may say of a field: any but "user", which
// only a relay of the user's own words can say.
func ParseTrust(s string) (Trust, bool) {
	for t, name := range trustNames[:User] {
		if s == name {
			return Trust(t), true
		}
	}
	return Unknown, false
}

// MarkNames are the words that [ParseTrust] knows.
func MarkNames() []string { return append([]string(nil), trustNames[:User]...) }

// An Origin is where a value is from. The zero Origin is [Unknown].
type Origin struct {
	Trust Trust
	// Tool is the operation that returned it, and Step the call of the session,
	// counted from 0. Empty and -1 for what no tool returned.
	Tool string
	Step int64
	// Named: the user named it, or the record in which a tool returned it ("the
	// file plan.txt"), or the session itself made it.
	Named bool
	// Contested: an outsider has named it too, or had it looked up.
	Contested bool
}

// None is the origin of nothing at all: an argument that is absent, null,
// empty, or a truth value. Nothing can be wrong with it.
var None = Origin{Trust: Nothing, Step: -1, Named: true}

// Unseen is the origin of what was looked for nowhere.
var Unseen = Origin{Step: -1, Contested: true}

// Worse joins the origins of two parts of one thing: the less trusted of the
// two, the first if they are equal; named if both are, contested if one is.
func Worse(a, b Origin) Origin {
	worse := a
	if b.Trust < a.Trust {
		worse = b
	}
	worse.Named, worse.Contested = a.Named && b.Named, a.Contested || b.Contested
	return worse
}

// Marks say of the fields of what an operation returns how far they can be
// trusted.
type Marks struct {
	// Rest is for what no field is said of.
	Rest Trust
	// Fields are said of fields.
	Fields []FieldMark
	// YAML: text is YAML, as a program writes it that quotes what has to be.
	// Otherwise only JSON has fields.
	YAML bool
}

// A FieldMark is said of a field and of all beneath it. Of several that fit the
// longest counts; of equally long ones the least trusted.
type FieldMark struct {
	// Path are the names on the way to the field. Lists are looked through, "*"
	// stands for any name.
	Path  []string
	Trust Trust
}

// Least is the least trusted of the marks.
func (m Marks) Least() Trust {
	least := m.Rest
	for _, f := range m.Fields {
		least = min(least, f.Trust)
	}
	return least
}

// at is the trust in what is at a path.
func (m Marks) at(path []string) Trust {
	trust, length := m.Rest, 0
	for _, f := range m.Fields {
		switch {
		case len(f.Path) < length || !f.covers(path):
		case len(f.Path) > length:
			trust, length = f.Trust, len(f.Path)
		default:
			trust = min(trust, f.Trust)
		}
	}
	return trust
}

func (f FieldMark) covers(path []string) bool {
	if len(f.Path) > len(path) {
		return false
	}
	for i, name := range f.Path {
		if name != "*" && name != path[i] {
			return false
		}
	}
	return true
}
