package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/ijson"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// Bounds of a page of results.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// A hunt is a search request (AuthZEN 1.0 §8).
type hunt struct {
	question
	want  pep.Part
	token string
	limit int // -1: not said
}

func (e *exchange) searchSubject() *problem  { return e.search(pep.PartSubject) }
func (e *exchange) searchResource() *problem { return e.search(pep.PartResource) }
func (e *exchange) searchAction() *problem   { return e.search(pep.PartAction) }

// search answers with what the wanted part of a request could be.
func (e *exchange) search(want pep.Part) *problem {
	body, p := e.body()
	if p != nil {
		return p
	}
	h, p := e.parseHunt(body, want)
	if p != nil {
		return p
	}
	if wrong := h.lacks(want); wrong != "" {
		return badRequest(wrong)
	}
	after, p := e.api.resume(h)
	if p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(e.r.Context(), e.api.Timeout)
	defer cancel()
	// Whether anything is there is worth an answer even to a PEP that wants none
	// of it.
	page, err := e.api.find(ctx, h.request(e), pep.Query{Want: want, After: after, Limit: max(1, h.limit)})
	if err != nil {
		return e.fault("search", err)
	}
	if h.limit == 0 {
		page = pep.Page{More: page.More || len(page.IDs) > 0}
	}
	return e.tellPage(h, after, page)
}

func (e *exchange) parseHunt(body []byte, want pep.Part) (*hunt, *problem) {
	h := &hunt{want: want, limit: -1}
	r := &e.reader
	r.Reset(body)
	if !r.Object() {
		return nil, e.malformed()
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch {
		case string(member) == "action" && want == pep.PartAction:
			r.Value() // AuthZEN 1.0 §8.6.1: it has none
		case h.read(r, member, want):
		case string(member) == "page":
			h.readPage(r)
		default:
			r.Value()
		}
	}
	if r.End() != nil {
		return nil, e.malformed()
	}
	switch want {
	case pep.PartSubject:
		h.subject.properties = nil
	case pep.PartResource:
		h.resource.properties = nil
	}
	return h, nil
}

// readPage reads AuthZEN 1.0 §8.2.1. There are no properties that we know.
func (h *hunt) readPage(r *ijson.Reader) {
	if !r.Object() {
		h.expect(r, "page", "", "an object")
		return
	}
	for member, ok := r.Next(); ok; member, ok = r.Next() {
		switch string(member) {
		case "token":
			if h.token, ok = r.String(); !ok {
				h.expect(r, "page", ".token", "a string")
			}
		case "limit":
			if h.limit, ok = count(r.Value()); !ok {
				h.complain("page", ".limit must be a non-negative integer.")
			}
		case "properties":
			h.readObject(r, "page", ".properties")
		default:
			r.Value()
		}
	}
}

// count reads a non-negative integer. More than [maxLimit] is as good as that.
func count(number []byte) (n int, ok bool) {
	for _, c := range number {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(10*n+int(c-'0'), maxLimit)
	}
	return n, len(number) > 0
}

// find asks the decider. A panic is a fault like any other.
func (a *API) find(ctx context.Context, req authz.Request, q pep.Query) (page pep.Page, err error) {
	defer a.contain(&err)
	return a.Decider.Search(ctx, req, q)
}

// tellPage answers with one page (AuthZEN 1.0 §8.2.2, §8.3). The page object
// is the first member and always there.
func (e *exchange) tellPage(h *hunt, after string, page pep.Page) *problem {
	next := ""
	if page.More {
		if len(page.IDs) > 0 {
			after = page.IDs[len(page.IDs)-1]
		}
		var err error
		if next, err = e.api.suspend(h, after); err != nil {
			return e.fault("search", err)
		}
	}
	b := append(e.buf, `{"page":{"next_token":`...)
	b = quote(b, next)
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, int64(len(page.IDs)), 10)
	b = append(b, `},"results":[`...)
	for _, id := range page.IDs {
		b = h.appendResult(b, id)
		b = append(b, ',')
	}
	e.buf = append(trimComma(b), "]}"...)
	e.write(http.StatusOK)
	return nil
}

func (h *hunt) appendResult(b []byte, id string) []byte {
	typ := h.resource.entity.Type
	switch h.want {
	case pep.PartAction:
		b = append(b, `{"name":`...)
		b = quote(b, id)
		return append(b, '}')
	case pep.PartSubject:
		typ = h.subject.entity.Type
	}
	b = append(b, `{"type":`...)
	b = quote(b, typ)
	b = append(b, `,"id":`...)
	b = quote(b, id)
	return append(b, '}')
}
