package openapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrUnknown is wrapped by the error of [Router.Route] for a request that is
// no operation of the document, or one that cannot be used. The whole error is
// one clause fit for the caller.
var ErrUnknown = errors.New("no operation of the API")

// ErrNoBody is what [Router.Route] returns when the operation depends on a body
// and the caller did not see it.
var ErrNoBody = errors.New("the operation takes a body, which this enforcement point does not see")

// An InputError says why the arguments of a request cannot be read. It is one
// clause fit for the caller: it names the argument and never quotes its value.
type InputError struct {
	// Argument is the parameter's name; empty for the whole.
	Argument string
	Reason   string
}

func (e *InputError) Error() string {
	if e.Argument == "" {
		return e.Reason
	}
	return "argument " + quote(e.Argument) + " " + e.Reason
}

// A Call is a request as a tool call.
type Call struct {
	// Tool is the name of the tool.
	Tool string
	// Definition is the digest of its definition.
	Definition string
	// Input is the arguments, one JSON object.
	Input json.RawMessage
	// Headers are the request headers that are arguments, in canonical form.
	Headers []string
}

// A Router finds the operation of a request. It is safe for concurrent use.
type Router struct{ index index }

// An endpoint is a path with its operations.
type endpoint struct {
	template *template
	methods  map[string]*operation
	refused  map[string]string // method → why
}

func newRouter(d *Document) *Router {
	r := &Router{}
	byPath := map[*template]*endpoint{}
	// A path without operations is there all the same: it is not an instance
	// of a less literal one.
	for _, t := range d.templates {
		e := &endpoint{template: t, methods: map[string]*operation{}, refused: map[string]string{}}
		byPath[t] = e
		r.index.add(e)
	}
	for _, o := range d.operations {
		byPath[o.template].methods[o.method] = o
	}
	for _, o := range d.refused {
		byPath[o.template].refused[o.method] = o.message
	}
	return r
}

func unknown(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnknown, fmt.Sprintf(format, args...))
}

// Route finds the tool that a request calls, and its arguments. The path of u
// is that below the API's base, escaped as it will be sent; h and body are what
// will be sent. Of the headers only those that the operation declares, and
// those that frame the body, are looked at. Without whole, body is not known.
//
// What it returns is all that the document gives a meaning to: a request with
// anything else in its path, query or body is refused. The error wraps
// [ErrUnknown] or [ErrNoBody], or is an [*InputError]; with the latter two the
// call says which tool was meant, and has no input.
func (r *Router) Route(method string, u *url.URL, h http.Header, body []byte, whole bool) (Call, error) {
	o, values, err := r.find(method, u)
	if err != nil {
		return Call{}, err
	}
	call := Call{Tool: o.name, Definition: o.digest}
	if err := framing(o, h, body, whole); err != nil {
		return call, err
	}
	in := input{operation: o}
	if err := in.path(values); err != nil {
		return call, err
	}
	if err := in.query(u.RawQuery); err != nil {
		return call, err
	}
	if err := in.headers(h); err != nil {
		return call, err
	}
	if err := in.body(h, body); err != nil {
		return call, err
	}
	call.Input, call.Headers = in.out.json(), in.used
	return call, nil
}

// find finds the operation and the values in the path, escaped.
func (r *Router) find(method string, u *url.URL) (*operation, map[string]string, error) {
	path, err := splitPath(u.EscapedPath())
	if err != nil {
		return nil, nil, unknown("%v", err)
	}
	e, err := r.endpoint(path)
	if err != nil {
		return nil, nil, err
	}
	values, ok := e.template.values(path)
	if !ok {
		return nil, nil, unknown("the path is not written as the document has it")
	}
	o, ok := e.methods[method]
	if why := e.refused[method]; !ok && why != "" {
		return nil, nil, unknown("%s", why)
	}
	if !ok {
		return nil, nil, unknown("this path has no such method")
	}
	return o, values, nil
}

// endpoint finds the one path of the document that a path is. Where two match,
// the one that is more literal in every segment is meant (OpenAPI 3.0.4
// §4.7.8.2); where none is, servers differ.
func (r *Router) endpoint(path []pathSegment) (*endpoint, error) {
	found := r.index.find(path, nil)
	if len(found) == 0 {
		return nil, unknown("no path of the document matches")
	}
	for _, e := range found {
		if !slices.ContainsFunc(found, func(o *endpoint) bool {
			return o != e && (!e.template.covers(o.template) || o.template.covers(e.template))
		}) {
			return e, nil
		}
	}
	return nil, unknown("the path could be either of two in the document")
}

// framing holds a request to having a body only if the operation takes one.
func framing(o *operation, h http.Header, body []byte, whole bool) error {
	if !whole {
		if o.body != nil {
			return ErrNoBody
		}
		if n := h.Get("Content-Length"); n != "" && n != "0" || h.Get("Transfer-Encoding") != "" {
			return &InputError{Reason: "the operation takes no body"}
		}
		return nil
	}
	if o.body == nil && len(body) > 0 {
		return &InputError{Reason: "the operation takes no body"}
	}
	if enc := h.Get("Content-Encoding"); len(body) > 0 && enc != "" && !strings.EqualFold(enc, "identity") {
		return &InputError{Reason: "the body must not be compressed"}
	}
	return nil
}

// An input collects the arguments of one request.
type input struct {
	operation *operation
	out       object
	used      []string
}

// path reads the parameters of the path.
func (in *input) path(values map[string]string) error {
	for _, a := range in.operation.arguments {
		if a.in != "path" {
			continue
		}
		if err := in.add(&in.out, a, []string{values[a.name]}, url.PathUnescape); err != nil {
			return err
		}
	}
	return nil
}

// query reads the parameters of the query.
func (in *input) query(raw string) error {
	pairs, err := parsePairs(raw)
	if err != nil {
		return &InputError{Reason: err.Error()}
	}
	return in.pairs(&in.out, pairs, in.operation.query, "query")
}

// pairs reads a query or form whose parameters are known.
func (in *input) pairs(out *object, pairs []pair, known map[string]*argument, where string) error {
	texts := map[string][]string{}
	for _, p := range pairs {
		if known[p.name] == nil {
			return &InputError{Argument: p.name, Reason: "in the " + where + " is not known to the operation"}
		}
		texts[p.name] = append(texts[p.name], p.raw)
	}
	for _, name := range sortedNames(known) {
		a := known[name]
		if len(texts[name]) == 0 {
			if a.required {
				return &InputError{Argument: name, Reason: "is missing"}
			}
			continue
		}
		if err := in.add(out, a, texts[name], url.QueryUnescape); err != nil {
			return err
		}
	}
	return nil
}

// headers reads the parameters among the headers.
func (in *input) headers(h http.Header) error {
	for _, a := range in.operation.headers {
		key := textproto.CanonicalMIMEHeaderKey(a.name)
		values := h[key]
		if len(values) == 0 {
			if a.required {
				return &InputError{Argument: a.name, Reason: "is missing from the headers"}
			}
			continue
		}
		if len(values) > 1 {
			return &InputError{Argument: a.name, Reason: "is given twice"}
		}
		if err := in.add(&in.out, a, []string{strings.TrimSpace(values[0])}, verbatim); err != nil {
			return err
		}
		in.used = append(in.used, key)
	}
	return nil
}

// add reads one argument from its texts, escaped.
func (in *input) add(out *object, a *argument, texts []string, unescape func(string) (string, error)) error {
	fail := func(reason string) error { return &InputError{Argument: a.name, Reason: reason} }
	if len(texts) > 1 && (!a.list || !a.explode) {
		return fail("is given twice")
	}
	var elements []string
	if a.list && !a.explode {
		var err error
		if elements, err = splitList(texts[0], unescape); err != nil {
			return fail(err.Error())
		}
	} else {
		for _, t := range texts {
			plain, err := unescape(t)
			if err != nil {
				return fail("is not percent-encoded as it should be")
			}
			elements = append(elements, plain)
		}
	}
	values := make([]jsontext.Value, len(elements))
	for i, e := range elements {
		var err error
		if values[i], err = a.scalar.value(e); err != nil {
			return fail(err.Error())
		}
	}
	if a.list {
		out.add(a.property, array(values))
	} else {
		out.add(a.property, values[0])
	}
	return nil
}

// body reads the body.
func (in *input) body(h http.Header, body []byte) error {
	b := in.operation.body
	if b == nil {
		return nil
	}
	if len(body) == 0 && len(h.Values("Content-Type")) == 0 {
		if b.required {
			return &InputError{Argument: b.property, Reason: "is missing"}
		}
		return nil
	}
	if err := b.checkType(h.Values("Content-Type")); err != nil {
		return err
	}
	switch b.kind {
	case bodyJSON:
		v, err := iJSON(body)
		if err != nil {
			return &InputError{Argument: b.property, Reason: err.Error()}
		}
		in.out.add(b.property, v)
	case bodyForm:
		pairs, err := parsePairs(string(body))
		if err != nil {
			return &InputError{Argument: b.property, Reason: err.Error()}
		}
		var form object
		if err := in.pairs(&form, pairs, b.fields, "form"); err != nil {
			return err
		}
		in.out.add(b.property, jsontext.Value(form.json()))
	case bodyOpaque:
		sum := sha256.Sum256(body)
		in.out.add(b.property, jsontext.Value(`"sha256:`+hex.EncodeToString(sum[:])+`"`))
		in.out.add(b.size, jsontext.Value(strconv.Itoa(len(body))))
	default:
		return &InputError{Argument: b.property, Reason: "cannot be read"}
	}
	return nil
}

// checkType holds a request to one content type that the operation takes.
func (b *body) checkType(values []string) error {
	wrong := func() error {
		return &InputError{Reason: "the content type is none that the operation takes: " + strings.Join(b.types, ", ")}
	}
	if len(values) != 1 {
		return wrong()
	}
	name, params, err := mime.ParseMediaType(values[0])
	if err != nil || strings.HasPrefix(name, "multipart/") || !b.takes(name) {
		return wrong()
	}
	if cs, ok := params["charset"]; ok && b.kind != bodyOpaque && !strings.EqualFold(cs, "utf-8") {
		return &InputError{Reason: "the body must be in UTF-8"}
	}
	return nil
}

func sortedNames(m map[string]*argument) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
