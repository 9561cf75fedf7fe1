package redis

import (
	"embed"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// The scripts are sent whole once and by their digest from then on; a Redis that
// has forgotten them, after a restart or a failover, is sent them again.
var (
	//go:embed lua
	sources embed.FS

	applyScript   = script("common", "apply/stage", "apply/index", "apply/write", "apply/delete", "apply/commit")
	usedScript    = script("common", "used")
	lookupScript  = script("common", "lookup")
	keyScript     = script("common", "key")
	keysScript    = script("common", "rank", "keys")
	auditScript   = script("common", "rank", "audit")
	findScript    = script("find")
	listScript    = script("list")
	schemaScript  = script("common", "schema")
	replicaScript = script("common", "replica")
)

// script joins parts of a script in the order in which they build on each other.
func script(parts ...string) *goredis.Script {
	var all strings.Builder
	for _, part := range parts {
		text, err := sources.ReadFile("lua/" + part + ".lua")
		if err != nil {
			panic(err) // the binary lacks a part of itself
		}
		all.Write(text)
		all.WriteByte('\n')
	}
	return goredis.NewScript(all.String())
}

// All keys of the control plane carry one hash tag: one slot of a cluster, so
// that one script can make a whole change.
const tag = "kg:{kg}:"

const (
	schemaKey        = tag + "schema"
	sequenceKey      = tag + "seq"
	changesKey       = tag + "changes"
	replicasKey      = tag + "replicas"
	probeKey         = tag + "probe"
	organizationKey  = tag + "organization:" // + id
	spaceKey         = tag + "space:"        // + id
	accountKey       = tag + "account:"      // + id
	keyKey           = tag + "key:"          // + id
	settingKey       = tag + "setting:"      // + name
	secretKey        = tag + "secret:"       // + hash
	slugKey          = tag + "slug:"         // + slug, or + organization + ":" + slug
	grantsKey        = tag + "grants:"       // + account
	rememberedKey    = tag + "remembered:"   // + id
	organizationsKey = tag + "organizations"
	spacesKey        = tag + "spaces:"   // + organization
	accountsKey      = tag + "accounts:" // + organization
	auditKey         = tag + "audit"     // + ":" + organization
	entriesKey       = tag + "entries"
	// The sets of keys, of which lua/apply/index.lua has the whole list.
	keysKey  = tag + "keys"  // + ":" + organization
	namesKey = tag + "names" // + ":" + organization
	usedKey  = tag + "used"  // + ":" + organization
	usesKey  = tag + "uses"
)
