"""Where models come from: URIs, a cache that is filled safely, and the facts of a model without its weights.

Nothing here imports torch. `fetch` fills a cache over the network, `resolve` finds what it left without any network,
`facts` reads what planning needs from the headers alone.
"""

from pagoda_engine.source.access import Access
from pagoda_engine.source.cache import default_download_dir, resolve
from pagoda_engine.source.fetch import fetch
from pagoda_engine.source.inspection import facts
from pagoda_engine.source.uri import HfUri, PypiUri, Uri, is_uri, parse

__all__ = ["Access", "HfUri", "PypiUri", "Uri", "default_download_dir", "facts", "fetch", "is_uri", "parse", "resolve"]
