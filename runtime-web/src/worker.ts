/** The module that the engine's worker starts from. */

import { serve } from "./host.js";

serve(globalThis);
