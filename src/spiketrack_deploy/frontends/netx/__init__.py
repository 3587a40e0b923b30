"""Networks of lava-dl: ``.net`` files of netx, read into integer programs and written from them."""
