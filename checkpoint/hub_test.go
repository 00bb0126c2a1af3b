package checkpoint

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// standIn is a small model hub on this machine: an API that lists files, small
// files served with their git hash, and weights redirected to a second server
// as the hub does with large files.
type standIn struct {
	t      *testing.T
	commit string
	token  string // required, unless empty
	files  map[string][]byte
	served atomic.Int32 // large files served
	// failing makes the server answer nothing else.
	failing atomic.Bool
	// spoil, if set, answers in place of the server for large files.
	spoil func(w http.ResponseWriter, data []byte)
	hub   *httptest.Server
}

func newStandIn(t *testing.T) *standIn {
	weights, err := os.ReadFile("testdata/golden/single/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("testdata/golden/single/config.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{t: t, commit: strings.Repeat("0a", 20), files: map[string][]byte{
		"config.json": config, weightsFile: weights, "vocab.txt": []byte("[PAD]\n"), "README.md": nil, "pytorch_model.bin": nil,
	}}
	large := httptest.NewServer(http.HandlerFunc(s.large))
	elsewhere := strings.Replace(large.URL, "127.0.0.1", "localhost", 1) // another host, as far as tokens go
	s.hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.small(w, r, elsewhere) }))
	t.Cleanup(large.Close)
	t.Cleanup(func() { s.hub.Close() })
	for _, name := range []string{"HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", s.hub.URL)
	return s
}

func (s *standIn) small(w http.ResponseWriter, r *http.Request, large string) {
	if s.failing.Load() {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if revision, ok := strings.CutPrefix(r.URL.Path, "/api/models/org/name/revision/"); ok && (revision == "main" || revision == s.commit) {
		type sibling struct {
			Name string `json:"rfilename"`
		}
		var siblings []sibling
		for name := range s.files {
			siblings = append(siblings, sibling{name})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "org/name", "sha": s.commit, "siblings": siblings})
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+s.commit+"/")
	data, there := s.files[name]
	if !ok || !there {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Repo-Commit", s.commit)
	if strings.HasSuffix(name, ".safetensors") {
		w.Header().Set("X-Linked-Etag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(data)))
		http.Redirect(w, r, large+"/"+name+"?signed=yes", http.StatusFound)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data))))
	_, _ = w.Write(data)
}

func (s *standIn) large(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		s.t.Error("the token was sent to another host")
	}
	if r.URL.RawQuery != "signed=yes" {
		s.t.Errorf("the signature was lost: %s", r.URL)
	}
	data := s.files[strings.TrimPrefix(r.URL.Path, "/")]
	w.Header().Set("ETag", fmt.Sprintf(`"elsewhere-%d"`, len(data)))
	if r.Method == http.MethodHead {
		return
	}
	s.served.Add(1)
	if s.spoil != nil {
		s.spoil(w, data)
		return
	}
	_, _ = w.Write(data)
}

func (s *standIn) resolve(name string) string {
	s.t.Helper()
	dir, err := Resolve(context.Background(), name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func (s *standIn) fails(name, want string) {
	s.t.Helper()
	_, err := Resolve(context.Background(), name, nil)
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("expected an error with %q, found %v", want, err)
	} else if strings.Contains(err.Error(), "while downloading") {
		s.t.Errorf("expected the cause alone, found the library's chain of errors: %v", err)
	}
}

func TestHubFetch(t *testing.T) {
	s := newStandIn(t)
	s.token = "secret"
	s.fails("org/name", "org/name: no such directory, and fetching it failed: the hub answers 401 Unauthorized: check name and revision, set HF_TOKEN if it is private, or give a local folder")
	t.Setenv("HF_TOKEN", "secret")
	var last, total int64
	dir, err := Resolve(context.Background(), "org/name", func(file string, done, all int64) {
		if file == weightsFile {
			last, total = done, all
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--org--name", "snapshots", s.commit); dir != want {
		t.Errorf("directory %s, expected %s", dir, want)
	}
	if size := int64(len(s.files[weightsFile])); last != size || total != size {
		t.Errorf("progress ended at %d of %d, expected %d", last, total, size)
	}
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Weights.Names()) == 0 || len(d.Carry) != 1 || d.Carry[0] != "vocab.txt" {
		t.Errorf("%d tensors, files %q", len(d.Weights.Names()), d.Carry)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"README.md", "pytorch_model.bin"} {
		if exists(filepath.Join(dir, name)) {
			t.Errorf("%s was fetched without need", name)
		}
	}

	// From now on the weights are there.
	for _, name := range []string{"org/name", "org/name@main", "org/name@" + s.commit} {
		if again := s.resolve(name); again != dir {
			t.Errorf("%s gives %s", name, again)
		}
	}
	if n := s.served.Load(); n != 1 {
		t.Errorf("the weights were fetched %d times", n)
	}
	s.fails("org/name@v2", "org/name@v2: no such directory, and fetching it failed: the hub answers 404 Not Found: check name")
	s.fails("org/other", "the hub answers 404 Not Found: check name")
	s.failing.Store(true)
	s.fails("org/name", "the hub answers 503 Service Unavailable: try again, or give a local folder, or set HF_HUB_OFFLINE=1 to use the copy in the cache")
	s.hub.Close() // unreachable
	s.fails("org/other", "org/other: no such directory, and fetching it failed: the hub cannot be reached (dial tcp")
	if again := s.resolve("org/name"); again != dir {
		t.Errorf("with no hub it gives %s", again)
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	if again := s.resolve("org/name"); again != dir {
		t.Errorf("offline it gives %s", again)
	}
	s.fails("org/other", "HF_HUB_OFFLINE is set")
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	s.fails("org/name", "config.json is missing")
}

func TestHubSharded(t *testing.T) {
	s := newStandIn(t)
	delete(s.files, weightsFile)
	s.fails("org/name", "neither model.safetensors nor")
	for _, name := range []string{indexFile, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		data, err := os.ReadFile(filepath.Join("testdata/golden/sharded", name))
		if err != nil {
			t.Fatal(err)
		}
		s.files[name] = data
	}
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	dir := s.resolve("org/name")
	if !strings.HasPrefix(dir, os.Getenv("HF_HUB_CACHE")) {
		t.Errorf("HF_HUB_CACHE is not heeded: %s", dir)
	}
	open(t, dir)
	t.Setenv("HF_HUB_OFFLINE", "true")
	s.resolve("org/name")
	if err := os.Remove(filepath.Join(dir, "model-00002-of-00002.safetensors")); err != nil {
		t.Fatal(err)
	}
	s.fails("org/name", "expected the shard model-00002-of-00002.safetensors beside it, found none")
}

// Neither a connection cut halfway nor wrong bytes leave weights behind.
func TestHubSpoiled(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, data []byte)
		want  string
	}{
		"cut": {func(w http.ResponseWriter, data []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:len(data)/2])
		}, "model.safetensors: expected "},
		"short": {func(w http.ResponseWriter, data []byte) {
			_, _ = w.Write(data[:len(data)/2])
		}, "model.safetensors: expected "},
		"other": {func(w http.ResponseWriter, data []byte) {
			_, _ = w.Write(make([]byte, len(data)))
		}, "expected content of hash"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.spoil = c.spoil
			s.fails("org/name", c.want)
			snapshot := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--org--name", "snapshots", s.commit)
			if exists(filepath.Join(snapshot, weightsFile)) {
				t.Error("the spoiled weights are in the cache")
			}
			t.Setenv("HF_HUB_OFFLINE", "1")
			s.fails("org/name", "not in the cache")
			t.Setenv("HF_HUB_OFFLINE", "")
			s.spoil = nil
			open(t, s.resolve("org/name"))
		})
	}
}

// What was cut while no one was there to check it is found and fetched again.
func TestHubHeals(t *testing.T) {
	s := newStandIn(t)
	for name, cut := range map[string][]string{
		"org/name":             {weightsFile, "vocab.txt"},
		"org/name@" + s.commit: {weightsFile}, // fetched last: with them the others are whole
	} {
		for _, file := range cut {
			path, err := filepath.EvalSymlinks(filepath.Join(s.resolve(name), file))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 3); err != nil {
				t.Fatal(err)
			}
		}
		dir := s.resolve(name)
		if data, err := os.ReadFile(filepath.Join(dir, "vocab.txt")); string(data) != "[PAD]\n" {
			t.Errorf("%s: vocab.txt is %q (%v)", name, data, err)
		}
		open(t, dir)
	}
}

func TestHubCancelled(t *testing.T) {
	s := newStandIn(t)
	// The library's own download ends by itself, perhaps after the test: it
	// must not get in the way of the removal of a t.TempDir.
	home, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	t.Setenv("HF_HOME", home)
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	finished := make(chan struct{})
	s.spoil = func(w http.ResponseWriter, data []byte) {
		defer close(finished)
		cancel()
		<-release
	}
	if _, err := Resolve(ctx, "org/name", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	close(release)
	<-finished
}

func TestHubHostile(t *testing.T) {
	s := newStandIn(t)
	s.commit = "../../../../outside"
	s.fails("org/name", "expected a commit of 40 hexadecimal digits")
}

func TestResolveNames(t *testing.T) {
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "1")
	dir := t.TempDir()
	if got, err := Resolve(context.Background(), dir, nil); got != dir || err != nil {
		t.Errorf("a directory gives %s, %v", got, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "", "name", "./org/name", "/org/name", "org/name/more", "../name", "org/..", "org/name@../x", "org/name@", "or--g/name", "org/na me"} {
		if _, err := Resolve(context.Background(), name, nil); err == nil || strings.Contains(err.Error(), "OFFLINE") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
