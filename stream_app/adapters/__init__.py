"""Events as analytics products write them, mapped to the events of the input topics. Pure."""
