def explore(): pass
def regional_bound(): pass
def separate_regions(): pass
