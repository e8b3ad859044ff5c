// The design of dockeraudit's first description, in Go, as a measure to compare with.
//
//	reference -listen /path/proxy.sock -upstream /path/engine.sock -audit /path/audit.log
//
// Requests go through net/http and httputil.ReverseProxy. Each frame of a log stream is read (its
// header, then its payload), sent on, and given to a goroutine of its own, which runs the six
// expressions over it and appends one JSON line for each match.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

var patterns = []struct {
	name       string
	severity   string
	expression *regexp.Regexp
}{
	{"AWS Access Key", "HIGH", regexp.MustCompile(`AKIA[0-9A-Z]{16}`)},
	{"Generic API Key", "MEDIUM",
		regexp.MustCompile(`(?i)api[_-]?key[_-]?[:=]\s*['"]?([a-zA-Z0-9_\-]{20,})['"]?`)},
	{"Private Key", "HIGH", regexp.MustCompile(`-----BEGIN\s+(?:RSA\s+)?PRIVATE\s+KEY-----`)},
	{"Email Address", "LOW", regexp.MustCompile(`[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}`)},
	{"Bearer Token", "HIGH", regexp.MustCompile(`(?i)bearer\s+[a-zA-Z0-9_\-\.]{20,}`)},
	{"Password", "MEDIUM",
		regexp.MustCompile(`(?i)password[_-]?[:=]\s*['"]?([a-zA-Z0-9_\-!@#$%^&*]{8,})['"]?`)},
}

var logPath = regexp.MustCompile(`^(/v[0-9.]+)?/containers/([^/]+)/logs$`)
var streamTypes = map[byte]string{0: "stdin", 1: "stdout", 2: "stderr"}

type finding struct {
	Timestamp     string `json:"timestamp"`
	Container     string `json:"container_id"`
	StreamType    string `json:"stream_type"`
	Pattern       string `json:"pattern"`
	RedactedMatch string `json:"redacted_match"`
	Severity      string `json:"severity"`
}

type auditor struct {
	lock sync.Mutex
	file *os.File
}

func redact(match string) string {
	if len(match) <= 6 {
		return "***"
	}
	return match[:2] + "***" + match[len(match)-2:]
}

func (a *auditor) analyse(container, streamType string, payload []byte) {
	for _, pattern := range patterns {
		for _, match := range pattern.expression.FindAll(payload, -1) {
			now := time.Now().UTC().Format(time.RFC3339Nano)
			redacted := redact(string(match))
			line, _ := json.Marshal(
				finding{now, container, streamType, pattern.name, redacted, pattern.severity})
			a.lock.Lock()
			a.file.Write(append(line, '\n'))
			a.lock.Unlock()
		}
	}
}

func (a *auditor) copyFrames(w http.ResponseWriter, body io.Reader, container string) {
	flusher := w.(http.Flusher)
	header := make([]byte, 8)
	for {
		if _, err := io.ReadFull(body, header); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[4:]))
		n, err := io.ReadFull(body, payload)
		w.Write(header)
		if _, failed := w.Write(payload[:n]); failed != nil {
			return
		}
		flusher.Flush()
		go a.analyse(container, streamTypes[header[0]], payload[:n])
		if err != nil {
			return
		}
	}
}

func main() {
	listen := flag.String("listen", "", "path of the Unix socket to listen on")
	upstream := flag.String("upstream", "", "path of the engine's socket")
	audit := flag.String("audit", "audit.log", "path of the audit log")
	flag.Parse()
	file, err := os.OpenFile(*audit, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	a := &auditor{file: file}
	dial := func(string, string) (net.Conn, error) { return net.Dial("unix", *upstream) }
	transport := &http.Transport{Dial: dial, DisableCompression: true, MaxIdleConnsPerHost: 100}
	direct := func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", "docker" }
	proxy := &httputil.ReverseProxy{Director: direct, Transport: transport, FlushInterval: -1}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := logPath.FindStringSubmatch(r.URL.Path)
		if parts == nil || r.Method != http.MethodGet {
			proxy.ServeHTTP(w, r)
			return
		}
		out := r.Clone(r.Context())
		direct(out)
		out.RequestURI = ""
		response, err := transport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		for name, values := range response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(response.StatusCode)
		contentType := response.Header.Get("Content-Type")
		if strings.HasPrefix(contentType, "application/vnd.docker.multiplexed-stream") {
			a.copyFrames(w, response.Body, parts[2])
			return
		}
		io.Copy(w, response.Body)
	})
	socket, err := net.Listen("unix", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(socket, handler))
}
