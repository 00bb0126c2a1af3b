package checkpoint

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlpfusion/internal/disk"
)

// The hub's headers for a file that another host stores: what the answer of that host
// no longer says.
const (
	linkedETag = "X-Linked-Etag"
	linkedSize = "X-Linked-Size"
)

// stalled is how long the hub may send nothing.
const stalled = time.Minute

// fetch brings the revision into the cache: the small files first and the weights
// last, so that a snapshot with weights is whole, then the reference from the revision
// to its commit.
func (m hubModel) fetch(ctx context.Context, progress Progress) (string, error) {
	commit, names, err := m.list(ctx)
	if err != nil {
		return "", err
	}
	if err := m.contained(commit); err != nil {
		return "", err
	}
	small, weights, err := m.wanted(names)
	if err != nil {
		return "", err
	}
	get := func(names ...string) error {
		for _, name := range names {
			if err := m.download(ctx, commit, name, progress); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	if err := get(append(small, weights)...); err != nil {
		return "", err
	}
	dir := m.snapshot(commit)
	if weights == indexFile {
		weightMap, err := readIndex(filepath.Join(dir, indexFile))
		if err != nil {
			return "", err
		}
		for _, shard := range slices.Compact(slices.Sorted(maps.Values(weightMap))) {
			if !slices.Contains(names, shard) {
				return "", fmt.Errorf("%s names %s, which the repository lacks", indexFile, shard)
			}
			if err := get(shard); err != nil {
				return "", err
			}
		}
	}
	if commitHash.MatchString(m.revision) {
		return dir, nil
	}
	if err := disk.MkdirAll(filepath.Dir(m.ref())); err != nil {
		return "", err
	}
	return dir, WriteFileAtomic(m.ref(), []byte(commit))
}

// list asks the hub for the revision's commit and the names of its files.
func (m hubModel) list(ctx context.Context) (commit string, names []string, err error) {
	response, err := m.ask(ctx, http.MethodGet, "/api/models/"+m.name+"/revision/"+url.PathEscape(m.revision), nil)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = response.Body.Close() }() // only read
	var listing struct {
		Commit   string `json:"sha"`
		Siblings []struct {
			Name string `json:"rfilename"`
		} `json:"siblings"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxJSONFile)).Decode(&listing); err != nil {
		return "", nil, fmt.Errorf("expected the hub's list of files as JSON: %w", jsonEnd(err))
	}
	if !commitHash.MatchString(listing.Commit) {
		return "", nil, fmt.Errorf("expected a commit of 40 hexadecimal digits, found %q", listing.Commit)
	}
	for _, file := range listing.Siblings {
		if !fs.ValidPath(file.Name) || !filepath.IsLocal(file.Name) || strings.Contains(file.Name, `\`) {
			return "", nil, fmt.Errorf("expected the hub's list to name files within the model, found %q", file.Name)
		}
		names = append(names, file.Name)
	}
	return listing.Commit, names, nil
}

// wanted chooses from a repository's files those that belong to the model: what
// travels along to models made from it, and its weights or their index.
func (m hubModel) wanted(names []string) (small []string, weights string, err error) {
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, name := range names {
		folder, file := path.Split(name)
		own := false // a module's own weights, in one format
		if folder != "" {
			if !folders.MatchString(strings.TrimSuffix(folder, "/")) {
				continue
			}
			own = file == weightsFile || file == pickleFile && !there[folder+weightsFile]
		}
		if own || file == "config.json" || carries(file) {
			small = append(small, name)
		}
	}
	switch {
	case !there["config.json"]:
		return nil, "", errors.New("the repository has no config.json")
	case there[weightsFile]:
		return small, weightsFile, nil
	case there[indexFile]:
		return small, indexFile, nil
	case there[pickleFile] || there[pickleFile+".index.json"]:
		folder := path.Base(m.name)
		return nil, "", fmt.Errorf("the repository has only pickle files, which can run code when read: fetch it with 'hf download %s --revision %s --local-dir %s' and give that folder a %s once, in Python: %s",
			m.name, m.revision, folder, weightsFile, fromPickle(folder))
	}
	return nil, "", fmt.Errorf("the repository has neither %s nor %s", weightsFile, indexFile)
}

// remoteFile is what the hub says of a file.
type remoteFile struct {
	etag string
	size int64 // -1 if it does not say
}

// is tells whether a file on disk can be the one.
func (r remoteFile) is(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && (r.size < 0 || info.Size() == r.size)
}

// blobName is an ETag as the cache can name a file by it.
var blobName = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]*$`)

// download brings one file into the cache: its content into blobs/, under the hash by
// which the hub names it, and into the snapshot a link to that.
func (m hubModel) download(ctx context.Context, commit, name string, progress Progress) error {
	address := "/" + m.name + "/resolve/" + commit + "/" + (&url.URL{Path: name}).EscapedPath()
	remote, err := m.head(ctx, address)
	if err != nil {
		return err
	}
	if !blobName.MatchString(remote.etag) {
		return fmt.Errorf("expected an ETag of letters and digits, found %q", remote.etag)
	}
	place := filepath.Join(m.snapshot(commit), filepath.FromSlash(name))
	if remote.is(place) {
		return nil
	}
	blobs := filepath.Join(m.dir(), "blobs")
	if err := errors.Join(disk.MkdirAll(blobs), disk.MkdirAll(filepath.Dir(place))); err != nil {
		return err
	}
	blob := filepath.Join(blobs, remote.etag)
	if !remote.is(blob) {
		if progress == nil {
			progress = func(string, int64, int64) {}
		}
		if err := m.downloadBlob(ctx, address, remote, blob, func(done int64) { progress(name, done, max(0, remote.size)) }); err != nil {
			return err
		}
	}
	if err := disk.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(place), blob)
	if err != nil {
		return err
	}
	if disk.Symlink(target, place) == nil || remote.is(place) { // perhaps by another process
		return nil
	}
	return disk.Rename(blob, place) // a system without links
}

// downloadBlob downloads a file's content, from where an earlier try stopped. A broken
// connection is taken up again as long as something comes. What was received is kept
// for the next try, unless its hash is wrong; processes that want the same wait for
// each other.
func (m hubModel) downloadBlob(ctx context.Context, address string, remote remoteFile, blob string, progress func(done int64)) error {
	part := blob + ".incomplete" // as Python calls it
	var f *disk.File
	for {
		var err error
		if f, err = lockTemporary(part, false, disk.Create); err == nil {
			break
		}
		if !errors.Is(err, disk.ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	defer func() { _ = f.Close() }() // synced by then, or kept as it is
	if remote.is(blob) {             // by another process meanwhile
		return disk.Remove(part)
	}
	for most := int64(-1); ; {
		err := m.receive(ctx, address, remote, f, progress)
		if err == nil {
			break
		}
		info, failed := f.Stat()
		var broken brokenError
		if failed != nil || ctx.Err() != nil || !errors.As(err, &broken) || info.Size() <= most {
			return cmp.Or(ctx.Err(), err)
		}
		most = info.Size()
	}
	if err := checkHash(f, remote); err != nil {
		return errors.Join(err, disk.Remove(part))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := disk.Rename(part, blob); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(blob))
}

// brokenError is a connection that ended before the file did.
type brokenError struct {
	got, of int64
	cause   error
}

func (b brokenError) Error() string {
	if b.of < 0 {
		return fmt.Sprintf("the connection broke after %d bytes (%v)", b.got, b.cause)
	}
	return fmt.Sprintf("the connection broke after %d of %d bytes (%v)", b.got, b.of, b.cause)
}

func (b brokenError) Unwrap() error { return b.cause }

// receive appends to a file what is missing of it.
func (m hubModel) receive(ctx context.Context, address string, remote remoteFile, f *disk.File, progress func(done int64)) error {
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if have == remote.size {
		return nil
	}
	if remote.size < 0 || have > remote.size {
		have = 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := m.ask(ctx, http.MethodGet, address, header)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusPartialContent || !strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)) {
		if response.StatusCode == http.StatusPartialContent {
			return fmt.Errorf("asked for what follows byte %d, found %q", have, response.Header.Get("Content-Range"))
		}
		have = 0 // the server sends all of it
	}
	if err := f.Truncate(have); err != nil {
		return err
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return err
	}
	watch := time.AfterFunc(stalled, cancel)
	defer watch.Stop()
	buffer := make([]byte, 1<<16)
	for {
		progress(have)
		n, broke := response.Body.Read(buffer)
		watch.Reset(stalled)
		if _, err := f.Write(buffer[:n]); err != nil {
			return err
		}
		have += int64(n)
		switch {
		case remote.size >= 0 && have > remote.size:
			return fmt.Errorf("expected %d bytes, found more", remote.size)
		case broke == io.EOF && (remote.size < 0 || have == remote.size):
			progress(have)
			return nil
		case broke != nil:
			return brokenError{have, remote.size, broke}
		}
	}
}

// head asks the hub for a file's hash and size. Large files are redirected to another
// host, whose answer no longer has the hash: the redirect itself says it, so it is not
// followed.
func (m hubModel) head(ctx context.Context, address string) (remoteFile, error) {
	response, err := m.ask(ctx, http.MethodHead, address, nil)
	if err != nil {
		return remoteFile{}, err
	}
	_ = response.Body.Close() // a HEAD has none
	header := response.Header
	etag := header.Get(linkedETag)
	if etag == "" {
		etag = header.Get("ETag")
	}
	size, err := strconv.ParseInt(header.Get(linkedSize), 10, 64)
	if err != nil {
		size = -1
		if response.StatusCode == http.StatusOK {
			size = response.ContentLength
		}
	}
	return remoteFile{strings.Trim(strings.TrimPrefix(etag, "W/"), `"`), size}, nil
}

// ask sends a request to the hub. The token goes to the hub alone and to no host that
// it redirects to.
func (m hubModel) ask(ctx context.Context, method, address string, header http.Header) (*http.Response, error) {
	endpoint := strings.TrimRight(os.Getenv("HF_ENDPOINT"), "/")
	if endpoint == "" {
		endpoint = "https://huggingface.co"
	}
	request, err := http.NewRequestWithContext(ctx, method, endpoint+address, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Accept-Encoding", "identity")
	request.Header.Set("User-Agent", "mlpfusion")
	if token := os.Getenv("HF_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{CheckRedirect: func(next *http.Request, via []*http.Request) error {
		elsewhere := next.URL.Scheme != request.URL.Scheme || next.URL.Host != request.URL.Host
		if elsewhere {
			next.Header.Del("Authorization")
		}
		if method == http.MethodHead && (elsewhere || next.Response.Header.Get(linkedETag) != "") {
			return http.ErrUseLastResponse
		}
		if len(via) > 9 {
			return errors.New("it redirects more than ten times")
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		_ = response.Body.Close() // says nothing that is needed
		return nil, statusError(response.StatusCode)
	}
	return response, nil
}

// checkHash compares a file with its ETag on the hub: the SHA-256 of a large file, the
// git blob hash of a small one; servers with other tags are believed by the size alone.
func checkHash(f *disk.File, remote remoteFile) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var sum hash.Hash
	switch len(remote.etag) {
	case 2 * sha256.Size:
		sum = sha256.New()
	case 2 * sha1.Size:
		sum = sha1.New()
		_, _ = fmt.Fprintf(sum, "blob %d\x00", info.Size()) // a hash takes all
	default:
		return nil
	}
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return err
	}
	if found := hex.EncodeToString(sum.Sum(nil)); found != remote.etag {
		return fmt.Errorf("expected content of hash %s, found %s", remote.etag, found)
	}
	return nil
}
