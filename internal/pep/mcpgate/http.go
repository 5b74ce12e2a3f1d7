package mcpgate

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-dev/bailiwick/authz"
	"github.com/bailiwick-dev/bailiwick/internal/mcp"
	"github.com/bailiwick-dev/bailiwick/internal/pep"
)

// headerRun tells a client of the old era by what name decisions know its
// session: whoever relays the user's words has to name it. A modern client names
// its run itself, or has one for all.
const headerRun = "Bailiwick-Session"

// path is where the merged endpoint is; one server's is below it.
const path = "/mcp"

// ServeHTTP serves /mcp, all servers as one, and /mcp/<server>, one server as
// it is, to clients of both eras.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Did a browser come here by way of somebody else's name or page?
	if !g.knownHost(r.Host) || !g.knownOrigin(r) {
		httpError(w, http.StatusForbidden, "This host or origin is not one that the gate serves; an operator can add it to hosts or origins.")
		return
	}
	if crossOrigin(w, r) {
		return
	}
	end := g.endpoint(r.URL.Path)
	if end == nil {
		httpError(w, http.StatusNotFound, "There is no such MCP endpoint; try /mcp or /mcp/<server>.")
		return
	}
	switch r.Method {
	case http.MethodPost:
		g.post(w, r, end)
	case http.MethodGet:
		g.get(w, r, end)
	case http.MethodDelete:
		g.delete(w, r, end)
	default:
		w.Header().Set("Allow", "POST, GET, DELETE")
		httpError(w, http.StatusMethodNotAllowed, "Use POST.")
	}
}

func (g *Gate) endpoint(p string) *endpoint {
	p = strings.TrimSuffix(p, "/")
	if p == path {
		return g.whole
	}
	name, ok := strings.CutPrefix(p, path+"/")
	if !ok {
		return nil
	}
	return g.endpoints[name]
}

// post takes one message of a client.
func (g *Gate) post(w http.ResponseWriter, r *http.Request, end *endpoint) {
	accept := accepts(r)
	if !accept.json && !accept.events {
		httpError(w, http.StatusNotAcceptable, "Accept must list application/json and text/event-stream.")
		return
	}
	m, id, f := g.read(w, r)
	if f != nil {
		writeAnswer(w, f.tell(id))
		return
	}
	p := &posted{w: w, r: r, end: end, msg: m, accept: accept, credential: pep.Shown(r, g.public)}
	if modernRequest(r, m) {
		g.postModern(p)
		return
	}
	g.postLegacy(p)
}

// A posted message is on its way in, and its answer on its way out.
type posted struct {
	w      http.ResponseWriter
	r      *http.Request
	end    *endpoint
	msg    *mcp.Message
	accept acceptance
	// credential is what the client shows with this very request.
	credential authz.Credential
}

// asking completes the answer to a client that could come with another
// credential: the challenge, and the status that goes with it.
func (g *Gate) asking(p *posted, a answer) answer {
	if a.refused == "" {
		return a
	}
	if status, lines := g.door(p.r).Challenge(p.credential.Kind, a.refused, a.better); status != 0 {
		a.status, a.challenge = status, lines
	}
	return a
}

// read reads the one message of a request body, or as much as its id.
func (g *Gate) read(w http.ResponseWriter, r *http.Request) (*mcp.Message, json.RawMessage, *refusal) {
	if mt, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" || !utf8Charset(params) {
		return nil, nil, refuse(reasonMediaType, "The body must be application/json.")
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, nil, refuse(reasonMediaType, "The body must not be encoded.")
	}
	rc := http.NewResponseController(w)
	// A writer that knows no deadlines has none to be held to.
	_ = rc.SetReadDeadline(time.Now().Add(slowReader))
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.limits.Body))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return nil, nil, refuse(reasonTooLarge, "The body is larger than the gate reads.")
	}
	if err != nil {
		return nil, nil, refuse(reasonMalformed, "The body could not be read in time.")
	}
	return parse(body)
}

func utf8Charset(params map[string]string) bool {
	cs, ok := params["charset"]
	return !ok || strings.EqualFold(cs, "utf-8")
}

// parse reads one message, or as much as its id.
func parse(b []byte) (*mcp.Message, json.RawMessage, *refusal) {
	m, err := mcp.Parse(b)
	if err == nil {
		return m, nil, nil
	}
	var id json.RawMessage
	f := refuse(reasonMalformed, "The body is not a JSON-RPC message.")
	var se *mcp.SyntaxError
	if errors.As(err, &se) {
		f.message, id = se.Message, se.ID
		if se.Code == mcp.CodeParseError {
			f.reason = reasonSyntax
		}
	}
	return nil, id, f
}

// modernRequest reports whether a message is of the modern era. A client of
// that era says so in the body; a header that claims it is believed, and then
// compared with the body.
func modernRequest(r *http.Request, m *mcp.Message) bool {
	if mcp.GetString(m.Params(), "_meta", mcp.MetaProtocolVersion) >= mcp.ModernVersion {
		return true
	}
	return r.Header.Get(mcp.HeaderProtocolVersion) >= mcp.ModernVersion
}

// knownHost refuses a name that the gate does not go by, which is what a page
// that has rebound its own name to this machine comes with.
func (g *Gate) knownHost(host string) bool {
	name := hostname(host)
	return isLocal(name) || slices.ContainsFunc(g.hosts, func(h string) bool {
		return strings.EqualFold(h, host) || strings.EqualFold(h, name)
	})
}

func (g *Gate) knownOrigin(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	if len(values) > 1 {
		return false
	}
	if slices.ContainsFunc(g.origins, func(o string) bool { return strings.EqualFold(o, values[0]) }) {
		return true
	}
	u, err := url.Parse(values[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && isLocal(u.Hostname())
}

func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

func isLocal(name string) bool {
	return strings.EqualFold(name, "localhost") || name == "127.0.0.1" || name == "::1"
}

// crossOrigin lets pages of the origins that are served read the answers. It
// reports true when it has answered a preflight.
func crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate")
	if r.Method != http.MethodOptions {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "POST, GET, DELETE")
	h.Set("Access-Control-Allow-Headers", strings.Join(append([]string{
		"Authorization", "DPoP", "Content-Type", "Accept", "Last-Event-ID", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name",
	}, askedParamHeaders(r)...), ", "))
	w.WriteHeader(http.StatusNoContent)
	return true
}

// askedParamHeaders are the Mcp-Param-* headers that a preflight asks for.
func askedParamHeaders(r *http.Request) []string {
	var out []string
	for _, name := range strings.Split(r.Header.Get("Access-Control-Request-Headers"), ",") {
		name = strings.TrimSpace(name)
		if len(name) > len(mcp.HeaderParamPrefix) && strings.EqualFold(name[:len(mcp.HeaderParamPrefix)], mcp.HeaderParamPrefix) {
			out = append(out, name)
		}
	}
	return out
}

// acceptance is what a client takes as an answer.
type acceptance struct{ json, events bool }

// accepts reads the Accept headers. A client that says nothing takes anything
// (RFC 9110 §12.5.1).
func accepts(r *http.Request) acceptance {
	values := r.Header.Values("Accept")
	if len(values) == 0 {
		return acceptance{true, true}
	}
	var a acceptance
	for _, v := range values {
		for _, item := range strings.Split(v, ",") {
			mt, _, _ := strings.Cut(item, ";")
			switch strings.ToLower(strings.TrimSpace(mt)) {
			case "*/*":
				a.json, a.events = true, true
			case "application/json", "application/*":
				a.json = true
			case "text/event-stream", "text/*":
				a.events = true
			}
		}
	}
	return a
}

// httpError answers a request that is none of the protocol: with a JSON-RPC
// error without an id, which clients of both eras can read.
func httpError(w http.ResponseWriter, status int, message string) {
	writeAnswer(w, answer{
		msg:    mcp.NewError([]byte("null"), mcp.CodeInvalidRequest, message, nil),
		status: status,
	})
}
