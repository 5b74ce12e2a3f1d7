package openapi

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// An operation is one method of one path, as far as it can be used.
type operation struct {
	name       string
	method     string
	template   *template
	arguments  []*argument // path, query, header; each by name
	query      map[string]*argument
	path       map[string]*argument
	headers    []*argument
	body       *body // nil: it takes none
	definition []byte
	digest     string
}

// A refused operation is one that the document has and that cannot be used.
type refused struct {
	method   string
	template *template
	message  string
}

// An unusableError says why one operation cannot be used.
type unusableError struct{ message string }

func (e *unusableError) Error() string { return e.message }

func unusable(format string, args ...any) error {
	return &unusableError{fmt.Sprintf(format, args...)}
}

// A builder collects the operations of a document.
type builder struct {
	*reader
	doc   *Document
	names map[string]place // tool name → where it is from
}

// methods are the keys of a path item that are operations.
var methods = []string{"delete", "get", "head", "options", "patch", "post", "put", "trace"}

func (b *builder) paths(p place) error {
	if err := p.object(); err != nil || p.missing() {
		return err
	}
	for _, path := range p.keys {
		if strings.HasPrefix(path, "x-") {
			continue
		}
		if err := b.path(p.member(path), path); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) path(p place, path string) error {
	t, err := parseTemplate(path)
	if err != nil {
		return p.wrong("%v", err)
	}
	for _, o := range b.doc.templates {
		if t.sameShape(o) {
			return p.wrong("it is the same path as %q but for the names of parameters; keep one", o.path)
		}
	}
	b.doc.templates = append(b.doc.templates, t)
	item, err := b.resolve(p)
	if err != nil {
		return err
	}
	for _, key := range methods {
		op := item.member(key)
		if op.missing() {
			continue
		}
		if len(b.doc.operations)+len(b.doc.refused) >= maxOperations {
			return op.wrong("there are more than %d operations; leave out what agents do not need", maxOperations)
		}
		if err := b.operation(t, strings.ToUpper(key), item, op); err != nil {
			return err
		}
	}
	return nil
}

// operation adds one operation, or what is wrong with it.
func (b *builder) operation(t *template, method string, item, op place) error {
	if err := op.object(); err != nil {
		return err
	}
	o := &operation{method: method, template: t}
	var err error
	if o.name, err = toolName(method, t.path, op); err != nil {
		return err
	}
	if other, twice := b.names[o.name]; twice {
		return op.wrong("its name would be %q, which the operation at %s has; give it another operationId", o.name, other.at)
	}
	b.names[o.name] = op
	err = b.fill(o, item, op)
	var no *unusableError
	if errors.As(err, &no) {
		b.problem(op, o, "it cannot be called: "+no.message)
		b.doc.refused = append(b.doc.refused, &refused{method, t, no.message})
		return nil
	}
	if err != nil {
		return err
	}
	b.doc.operations = append(b.doc.operations, o)
	return nil
}

func (b *builder) problem(p place, o *operation, message string) {
	b.problems = append(b.problems, Problem{Line: p.line, Operation: o.method + " " + o.template.path, Message: message})
}

// fill reads what a call of the operation looks like.
func (b *builder) fill(o *operation, item, op place) error {
	if o.method == http.MethodTrace {
		return unusable("TRACE returns what was sent, credentials of the gate among it")
	}
	if op.get("servers") != nil || item.get("servers") != nil {
		return unusable("it has servers of its own, and an API here has one upstream; make it an API of its own")
	}
	s := b.schemas()
	taken := map[string]bool{}
	parameters, err := b.parameters(item, op)
	if err != nil {
		return err
	}
	if err := b.arguments(o, s, parameters, taken); err != nil {
		return err
	}
	if o.body, err = b.readBody(o, s, op, taken); err != nil {
		return err
	}
	if o.definition, err = o.define(op, s.defs); err != nil {
		return unusable("%v", err)
	}
	if len(o.definition) > maxDefinition {
		return unusable("its definition has %d bytes; at most %d can be pinned", len(o.definition), maxDefinition)
	}
	if o.digest, err = digestOf(o.definition); err != nil {
		return unusable("%v", err)
	}
	return nil
}

// property finds a free name among the arguments: the parameter's own, or with
// its place appended when two parameters have one name.
func property(name, in string, taken map[string]bool) (string, error) {
	for _, n := range []string{name, name + "_" + in} {
		if !taken[n] {
			taken[n] = true
			return n, nil
		}
	}
	return "", unusable("two of its arguments have the name %q", name)
}

var notInTool = regexp.MustCompile(`[^A-Za-z0-9._:/-]+`)

// toolName is the operationId, or the method and path; every run of other
// characters than letters, digits and ". _ : / -" becomes one "_".
func toolName(method, path string, op place) (string, error) {
	id := op.member("operationId")
	if !id.missing() && id.kind != '"' {
		return "", id.wrong("it must be a string")
	}
	from := id.str()
	if from == "" {
		from = strings.ToLower(method) + strings.NewReplacer("/", "_", "{", "", "}", "").Replace(path)
	}
	name := notInTool.ReplaceAllString(from, "_")
	if len(name) > 128 || strings.Trim(name, "._:/-") == "" {
		return "", op.wrong("it needs an operationId of letters and digits, at most 128 characters")
	}
	return name, nil
}
