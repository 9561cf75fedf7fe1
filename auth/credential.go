package auth

import (
	"net/http"
	"net/url"
	"strings"

	"keygate/internal/keys"
)

// Bearer reads the credential of a request (RFC 6750, section 2.1): exactly one
// Authorization header, the scheme in any case, one or more spaces, the key. The token
// is empty if there is none. exposed is whether a key stands in the URL: see Exposed.
func Bearer(h http.Header, exposed bool) (string, *Refusal) {
	values := h["Authorization"]
	if len(values) > 1 {
		return "", refuse(Ambiguous, "The request has more than one Authorization header. Send exactly one.")
	}
	sent := ""
	if len(values) == 1 {
		sent = token(values[0])
	}
	refusal := Presented(sent != "", exposed)
	if len(values) == 1 && refusal != nil && !exposed {
		return "", refuse(Missing, "There is an Authorization header that is not 'Bearer <key>'. Send the API key as 'Authorization: Bearer <key>'.")
	}
	return sent, refusal
}

// Presented judges how the one key of a request was sent: in the header, in the
// URL, both or not at all.
func Presented(inHeader, exposed bool) *Refusal {
	switch {
	case inHeader && exposed:
		return refuse(Ambiguous, "The request carries an API key in the Authorization header and another in the URL. Send it in the header only, and rotate the key that stood in the URL: it must be taken as exposed.")
	case exposed:
		return refuse(Missing, "The API key stands in the URL, where it is not accepted and must be taken as exposed: rotate it. Send it as 'Authorization: Bearer <key>'.")
	case !inHeader:
		return refuse(Missing, "No API key was sent. Send it as 'Authorization: Bearer <key>'.")
	}
	return nil
}

// token returns what follows the scheme, or "" for another scheme or nothing.
func token(value string) string {
	const scheme = "bearer"
	if len(value) <= len(scheme) || value[len(scheme)] != ' ' || !strings.EqualFold(value[:len(scheme)], scheme) {
		return ""
	}
	return strings.Trim(value[len(scheme):], " ")
}

// Exposed reports whether a URL holds a key, where logs and histories keep it: in the
// path, or in the query, as it stands or percent-encoded.
func Exposed(f keys.Format, u *url.URL) bool { return InURL(f, u) != "" }

func inQuery(f keys.Format, rawQuery string) string {
	if found := keyIn(f, rawQuery); found != "" || !strings.Contains(rawQuery, "%") {
		return found
	}
	decoded, err := url.PathUnescape(rawQuery)
	if err != nil {
		return ""
	}
	return keyIn(f, decoded)
}

// ShowsKey reports whether text that others may read holds something with the form of
// a key: whoever finds one there finds it as well where a letter that was mistyped makes
// it another word.
func ShowsKey(f keys.Format, s string) bool {
	return find(f, s, func(string) bool { return true }) != ""
}

// InURL returns the first key that a URL holds, in its query or else in its path; ""
// where it holds none.
func InURL(f keys.Format, u *url.URL) string {
	if found := inQuery(f, u.RawQuery); found != "" {
		return found
	}
	return keyIn(f, u.Path)
}

func keyIn(f keys.Format, s string) string {
	return find(f, s, func(after string) bool { return after == "" || !keys.MayContinue(after[0]) })
}

// find returns the first thing with the form of a key that ends where it may. Its cost
// grows with the length alone: s is the client's.
func find(f keys.Format, s string, mayEnd func(after string) bool) string {
	for {
		i := strings.Index(s, f.Prefix())
		if i < 0 {
			return ""
		}
		if end := i + f.Length(); end <= len(s) && f.Valid(s[i:end]) && mayEnd(s[end:]) {
			return s[i:end]
		}
		s = s[i+len(f.Prefix()):]
	}
}
