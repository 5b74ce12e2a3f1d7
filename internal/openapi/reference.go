package openapi

import (
	"net/url"
	"strconv"
	"strings"
)

// onlyLocal refuses references that leave the document. It looks at every
// object, so an example that holds a "$ref" elsewhere is refused too.
func (r *reader) onlyLocal(p place) error {
	if p.node == nil {
		return nil
	}
	if ref := p.get("$ref"); ref != nil && ref.kind == '"' && ref.text != "#" && !strings.HasPrefix(ref.text, "#/") {
		return p.member("$ref").wrong("%q leaves the document, and nothing is fetched; bundle the document into one file first", ref.text)
	}
	for _, key := range p.keys {
		if err := r.onlyLocal(p.member(key)); err != nil {
			return err
		}
	}
	for i := range p.items {
		if err := r.onlyLocal(p.item(i)); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows the references of an object that is not a schema.
func (r *reader) resolve(p place) (place, error) {
	for range maxRefs {
		ref := p.get("$ref")
		if ref == nil {
			return p, p.object()
		}
		to, ok := r.find(ref.str())
		if !ok {
			return p, p.member("$ref").wrong("%q leads nowhere; correct it or add what it names", ref.str())
		}
		p = to
	}
	return p, p.wrong("it is a reference to a reference to a reference, without an end")
}

// find looks up a local reference.
func (r *reader) find(ref string) (place, bool) {
	path, ok := strings.CutPrefix(ref, "#/")
	if !ok {
		return place{}, false
	}
	n := r.root
	for part := range strings.SplitSeq(path, "/") {
		key, err := url.PathUnescape(part) // RFC 6901 §6: percent-encoded
		if err != nil {
			return place{}, false
		}
		key = strings.ReplaceAll(strings.ReplaceAll(key, "~1", "/"), "~0", "~")
		switch {
		case n.kind == '{':
			n = n.get(key)
		case n.kind == '[':
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(n.items) {
				return place{}, false
			}
			n = n.items[i]
		default:
			return place{}, false
		}
		if n == nil {
			return place{}, false
		}
	}
	return place{n, "/" + path}, true
}
