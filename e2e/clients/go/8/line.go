// What the lines of the client do not have in common: here the 8 line.
package main

import "github.com/elastic/go-elasticsearch/v8/typedapi/types"

// body of a search of several.
type body = types.MultisearchBody

// about is the header of a search of several.
func about(collection, tenant string) types.MultisearchHeader {
	return types.MultisearchHeader{Index: []string{collection}, Routing: &tenant}
}
