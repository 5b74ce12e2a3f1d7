package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// toolNames lists the tools and returns their names.
func toolNames(t *testing.T, s Server) (string, error) {
	t.Helper()
	tools, err := ListTools(t.Context(), s)
	var names []string
	for _, tool := range tools {
		names = append(names, GetString(tool, "name"))
	}
	return strings.Join(names, " "), err
}

func TestDetectGenuineServers(t *testing.T) {
	t.Parallel()
	const all = "ask echo progress region wait"
	modernOnly := &sdk.ServerOptions{SupportedProtocolVersions: []string{ModernVersion}}
	legacyOnly := &sdk.ServerOptions{SupportedProtocolVersions: []string{LegacyVersion, "2025-06-18"}}
	for _, tt := range []struct {
		name   string
		server func(t *testing.T) Server
		want   Era
	}{
		{"both eras over HTTP", func(t *testing.T) Server {
			return Server{URL: serveSDK(t, newSDKServer(nil), &sdk.StreamableHTTPOptions{Stateless: true}).URL}
		}, Modern},
		{"modern over HTTP", func(t *testing.T) Server {
			return Server{URL: serveSDK(t, newSDKServer(modernOnly), &sdk.StreamableHTTPOptions{Stateless: true}).URL}
		}, Modern},
		{"legacy over HTTP", func(t *testing.T) Server {
			return Server{URL: serveSDK(t, newSDKServer(legacyOnly), nil).URL}
		}, Legacy},
		{"with sessions over HTTP", func(t *testing.T) Server {
			return Server{URL: serveSDK(t, newSDKServer(nil), nil).URL}
		}, Legacy},
		{"both eras over stdio", func(t *testing.T) Server { return selfServer(t, "sdk") }, Modern},
		{"legacy over stdio", func(t *testing.T) Server { return selfServer(t, "sdk legacy") }, Legacy},
		{"modern over stdio", func(t *testing.T) Server { return selfServer(t, "sdk modern") }, Modern},
		{"dies of the probe", func(t *testing.T) Server { return selfServer(t, "fragile") }, Legacy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.server(t)
			era, hello, err := Detect(t.Context(), s)
			if err != nil || era != tt.want {
				t.Fatalf("got %v, %v", era, err)
			}
			if _, ok := Get(hello, "capabilities"); !ok {
				t.Errorf("got %s", hello)
			}
			if tt.name == "dies of the probe" {
				return
			}
			if names, err := toolNames(t, s); err != nil || names != all {
				t.Errorf("got %q, %v", names, err)
			}
		})
	}
}

// legacyScript answers as a legacy server, and leaves lists to pages.
func legacyScript(t *testing.T, pages func(cursor string) string) Server {
	_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
		switch {
		case m == nil:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case m.Method() == "initialize":
			writeJSON(w, 200, answerTo(m))
		case m.Method() == "tools/list":
			writeJSON(w, 200, `{"jsonrpc":"2.0","id":`+string(m.ID())+`,`+pages(GetString(m.Params(), "cursor"))+`}`)
		case m.IsRequest():
			http.Error(w, "what?", http.StatusBadRequest)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	return Server{URL: srv.URL}
}

func TestListToolsFollowsCursorsWithinBounds(t *testing.T) {
	t.Parallel()
	n := 0
	for _, tt := range []struct {
		name  string
		pages func(cursor string) string
		want  string
		err   string
	}{
		{name: "pages", want: "a b c", pages: func(cursor string) string {
			switch cursor {
			case "":
				return `"result":{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"x\"y"}`
			case `x"y`:
				return `"result":{"tools":[],"nextCursor":"z"}`
			default:
				return `"result":{"tools":[{"name":"c"}]}`
			}
		}},
		{name: "no such method", pages: func(string) string { return `"error":{"code":-32601,"message":"no"}` }},
		{name: "an error", err: `error -32603: "broken\n"`, pages: func(string) string { return `"error":{"code":-32603,"message":"broken\n"}` }},
		{name: "a circle", err: "a page that it has had", pages: func(c string) string {
			return `"result":{"tools":[],"nextCursor":"` + map[string]string{"": "a", "a": "b", "b": "a"}[c] + `"}`
		}},
		{name: "no end", err: "more than 1000 pages", pages: func(string) string {
			n++
			return fmt.Sprintf(`"result":{"tools":[],"nextCursor":"%d"}`, n)
		}},
		{name: "a tool that is none", err: "not an object", pages: func(string) string { return `"result":{"tools":["a"]}` }},
		{name: "no list", err: "not a JSON array", pages: func(string) string { return `"result":{}` }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names, err := toolNames(t, legacyScript(t, tt.pages))
			if names != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v", names, err)
			}
		})
	}
}

func TestListToolsIsVerbatim(t *testing.T) {
	t.Parallel()
	const tool = `{ "name" : "a", "x-unknown":{"n":1.0},"inputSchema":{"type":"object"} }`
	tools, err := ListTools(t.Context(), legacyScript(t, func(string) string { return `"result":{"tools":[ ` + tool + ` ]}` }))
	if err != nil || len(tools) != 1 || string(tools[0]) != tool {
		t.Errorf("got %s, %v", tools, err)
	}
}

func TestDetectOddServers(t *testing.T) {
	t.Parallel()
	rpcError := func(e string) string { return `"error":` + e }
	for _, tt := range []struct {
		name     string
		discover func(w http.ResponseWriter, m *Message)
		version  string // in the answer to initialize
		err      string // "" is a legacy server
	}{
		{name: "an unknown method", discover: answerWith(404, rpcError(`{"code":-32601,"message":"no"}`))},
		{name: "any error", discover: answerWith(200, rpcError(`{"code":-1,"message":"no"}`))},
		{name: "a server error", discover: func(w http.ResponseWriter, _ *Message) { w.WriteHeader(500) }},
		{name: "a cut", discover: func(http.ResponseWriter, *Message) { panic(http.ErrAbortHandler) }},
		{name: "a result of another kind", discover: answerWith(200, `"result":{}`)},
		{name: "only legacy versions", discover: answerWith(200, `"result":{"supportedVersions":["2025-06-18"]}`)},
		{name: "only legacy versions, as an error", discover: answerWith(400, rpcError(`{"code":-32022,"message":"no","data":{"supported":["2025-11-25"]}}`))},
		{name: "only other versions", discover: answerWith(400, rpcError(`{"code":-32022,"message":"no","data":{"supported":["2030-01-01"]}}`)), err: "none of the versions"},
		{name: "a contradiction", discover: answerWith(400, rpcError(`{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}`)), err: "-32022"},
		{name: "a modern refusal", discover: answerWith(400, rpcError(`{"code":-32020,"message":"header"}`)), err: "-32020"},
		{name: "unauthorized", discover: func(w http.ResponseWriter, _ *Message) { w.WriteHeader(401) }, err: "status 401"},
		{name: "an unknown version", discover: answerWith(404, rpcError(`{"code":-32601,"message":"no"}`)), version: "1999-01-01", err: "1999-01-01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			version := "2025-06-18"
			if tt.version != "" {
				version = tt.version
			}
			_, srv := script(t, func(w http.ResponseWriter, r *http.Request, m *Message) {
				switch {
				case m == nil:
					w.WriteHeader(http.StatusMethodNotAllowed)
				case m.Method() == "server/discover":
					tt.discover(w, m)
				case m.Method() == "initialize":
					answerWith(200, `"result":{"protocolVersion":"`+version+`","capabilities":{}}`)(w, m)
				default:
					w.WriteHeader(http.StatusAccepted)
				}
			})
			era, _, err := Detect(t.Context(), Server{URL: srv.URL})
			if era != Legacy || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, %v", era, err)
			}
		})
	}
}

func answerWith(status int, rest string) func(http.ResponseWriter, *Message) {
	return func(w http.ResponseWriter, m *Message) {
		writeJSON(w, status, `{"jsonrpc":"2.0","id":`+string(m.ID())+`,`+rest+`}`)
	}
}

func TestDetectDoesNotWaitForEverForALegacyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := Server{URL: "http://example.test", Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Body == nil {
				return response(405, "", ""), nil
			}
			var body json.RawMessage
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				return nil, err
			}
			switch m := mustParse(t, string(body)); m.Method() {
			case "server/discover": // silence
				<-r.Context().Done()
				return nil, r.Context().Err()
			case "initialize":
				return response(200, "application/json", answerTo(m)), nil
			default:
				return response(202, "", ""), nil
			}
		})}}
		era, _, err := Detect(t.Context(), s)
		if era != Legacy || err != nil || time.Since(begun) != probeTimeout {
			t.Errorf("got %v, %v after %v", era, err, time.Since(begun))
		}
	})
}

func TestDetectReportsAServerThatCannotBeReached(t *testing.T) {
	t.Parallel()
	for _, s := range []Server{{URL: "http://127.0.0.1:1"}, {Command: "/nonexistent"}, {}} {
		if _, _, err := Detect(t.Context(), s); !errors.Is(err, ErrNotSent) {
			t.Errorf("detect: %v", err)
		}
		if _, err := ListTools(t.Context(), s); !errors.Is(err, ErrNotSent) {
			t.Errorf("list: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := Detect(ctx, selfServer(t, "silent")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
}

func TestOurOwnConversationIsPolite(t *testing.T) {
	t.Parallel()
	// The server asks two things before it answers the list.
	tools, err := ListTools(t.Context(), selfServer(t, "curious"))
	if err != nil || len(tools) != 1 {
		t.Fatalf("got %s, %v", tools, err)
	}
	if got := GetString(tools[0], "description"); got != `{"jsonrpc":"2.0","id":"q1","result":{}} {"jsonrpc":"2.0","id":"q2","error":{"code":-32601,"message":"this client offers nothing"}}` {
		t.Errorf("the server heard %s", got)
	}
}
