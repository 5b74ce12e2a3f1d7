package api

import (
	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// A question is an access evaluation request (AuthZEN 1.0 §6.1). Its parts
// point into the request body.
type question struct {
	subject  party
	action   action
	resource party
	context  given

	// wrong is the first thing that is wrong with it, other than its syntax.
	wrong string
}

// A party is a subject or a resource (AuthZEN 1.0 §5.1, §5.2).
type party struct {
	present    bool
	entity     authz.Entity
	properties []byte
}

// An action is one of AuthZEN 1.0 §5.3.
type action struct {
	present    bool
	name       string
	properties []byte
}

// A given context is that of AuthZEN 1.0 §5.4. Two of its members are ours:
// "session" names the agent run, "input" holds the arguments.
type given struct {
	present bool
	text    []byte
	session string
	input   []byte
}

// request is the question in the words of the PDP.
func (q *question) request(e *exchange) authz.Request {
	return authz.Request{
		PEP: e.credential(),
		Asserted: &authz.Assertion{
			Subject:            q.subject.entity,
			SubjectProperties:  q.subject.properties,
			ActionProperties:   q.action.properties,
			ResourceProperties: q.resource.properties,
			Context:            q.context.text,
		},
		Action:      q.action.name,
		Resource:    q.resource.entity,
		Input:       q.context.input,
		Session:     q.context.session,
		Gate:        e.api.Gate,
		Advisory:    true,
		Correlation: e.correlation(),
	}
}

// read reads a member of the request, if it is one that a question has. The
// part that is wanted has no id.
func (q *question) read(r *ijson.Reader, member []byte, wanted pep.Part) bool {
	switch string(member) {
	case "subject":
		q.readParty(r, &q.subject, "subject", wanted == pep.PartSubject)
	case "resource":
		q.readParty(r, &q.resource, "resource", wanted == pep.PartResource)
	case "action":
		q.readAction(r)
	case "context":
		q.readContext(r)
	default:
		return false
	}
	return true
}

func (q *question) readParty(r *ijson.Reader, p *party, where string, wanted bool) {
	p.present = true
	if !r.Object() {
		q.expect(r, where, "", "an object")
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch {
		case string(member) == "type":
			p.entity.Type = q.readName(r, where, ".type")
		case string(member) == "id" && !wanted:
			p.entity.ID = q.readName(r, where, ".id")
		case string(member) == "properties":
			p.properties = q.readObject(r, where, ".properties")
		default:
			r.Value()
		}
	}
	if p.entity.Type == "" {
		q.complain(where, ".type is missing.")
	}
	if p.entity.ID == "" && !wanted {
		q.complain(where, ".id is missing.")
	}
}

func (q *question) readAction(r *ijson.Reader) {
	q.action.present = true
	if !r.Object() {
		q.expect(r, "action", "", "an object")
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch string(member) {
		case "name":
			q.action.name = q.readName(r, "action", ".name")
		case "properties":
			q.action.properties = q.readObject(r, "action", ".properties")
		default:
			r.Value()
		}
	}
	if q.action.name == "" {
		q.complain("action", ".name is missing.")
	}
}

func (q *question) readContext(r *ijson.Reader) {
	c := &q.context
	c.present = true
	begun := r.Mark()
	if !r.Object() {
		q.expect(r, "context", "", "an object")
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch {
		case string(member) == "session" && r.Kind() == '"':
			c.session, _ = r.String()
		case string(member) == "input" && r.Kind() == '{':
			c.input = r.Value()
		default:
			r.Value()
		}
	}
	c.text = r.Since(begun)
}

// readName reads a string that says something. An empty one would mean "not
// said" further on, and nobody asks about that by accident.
func (q *question) readName(r *ijson.Reader, where, member string) string {
	s, ok := r.String()
	if !ok {
		q.expect(r, where, member, "a string")
	} else if s == "" {
		q.complain(where, member+" must not be empty.")
	}
	return s
}

func (q *question) readObject(r *ijson.Reader, where, member string) []byte {
	if r.Kind() != '{' {
		q.expect(r, where, member, "an object; leave it out when there is none")
		return nil
	}
	return r.Value()
}

// expect passes over a value that is not what it must be.
func (q *question) expect(r *ijson.Reader, where, member, what string) {
	q.complain(where, member+" must be "+what+".")
	r.Value()
}

// complain keeps the first complaint.
func (q *question) complain(where, what string) {
	if q.wrong == "" {
		q.wrong = where + what
	}
}

// lacks returns what is wrong with the question, "" if it can be asked.
func (q *question) lacks(wanted pep.Part) string {
	switch {
	case q.wrong != "":
		return q.wrong
	case !q.subject.present:
		return "subject is missing."
	case !q.action.present && wanted != pep.PartAction:
		return "action is missing."
	case !q.resource.present:
		return "resource is missing."
	}
	return ""
}
